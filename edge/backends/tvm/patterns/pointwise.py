"""1x1 convolutions, matrix products and convolutions whose stride is their kernel: the pointwise template.

conv2d(x, w)  |  matmul(x, w)                        ->  pointwise(x, w), with what follows as its epilogue
conv2d(concat(a, strided_slice(x, [c:])), w)         ->  pointwise(a, x, w): its sum goes over both
conv2d(permute_dims(image, NCHW -> NHWC), w)         ->  pointwise(image, w), for windows larger than 1
"""

from __future__ import annotations

from math import prod

from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant, shape
from edge.backends.tvm.patterns.matching import Match, Outcome, Refusal, epilogue
from edge.kernels.pointwise_problem import PointwiseProblem
from edge.kernels.template import Array


def match(flow: Dataflow, value: relax.Var) -> Outcome:
    """The match that begins at a value."""
    if (call := flow.call(value, "relax.nn.conv2d")) is not None:
        return _convolution(flow, value, call)
    if (call := flow.call(value, "relax.matmul")) is not None:
        return _product(flow, value, call)
    return None


def _convolution(flow: Dataflow, value: relax.Var, call: relax.Call) -> Outcome:
    weights, attributes = constant(call.args[1]), call.attrs
    window = shape(call.args[1])[1]
    if shape(call.args[1])[1:3] != (window, window) or set(attributes.strides) != {window}:
        return None  # another operator, which other patterns look for
    if attributes.groups != 1 or set(attributes.dilation) != {1} or set(attributes.padding) != {0}:
        return None
    if weights is None:
        return Refusal("conv2d", "weights that are not constant")
    if shape(call.args[0])[0] != 1:
        return Refusal("conv2d", "a batch")
    after = epilogue(flow, value)
    _, height, width, inputs = shape(call.args[0])
    rows, outputs = prod(shape(value)[:-1]), len(weights)
    shortcut = () if after.shortcut is None else ((after.shortcut, (rows, outputs)),)
    if window > 1:
        image, layout = call.args[0], "NHWC"
        if (planes := flow.planes(image)) is not None:
            image, layout, weights = planes, "NCHW", weights.transpose(0, 3, 1, 2)
        shapes = {"NHWC": (height, width, inputs), "NCHW": (inputs, height, width)}
        problem = PointwiseProblem(
            rows, inputs, outputs, window=window, height=height, width=width, layout=layout, **after.fields
        )
        activations = ((image, shapes[layout]), *shortcut)
    else:
        joined = _joined(flow, call.args[0])
        first, image = joined or (None, call.args[0])
        partial = shape(first)[-1] if first is not None else 0
        convolved = () if first is None else ((first, (rows, partial)),)
        problem = PointwiseProblem(rows, inputs, outputs, partial=partial, **after.fields)
        activations = (*convolved, (image, (rows, inputs)), *shortcut)
    return Match(after.result, "pointwise", problem, activations, (weights.reshape(outputs, -1), *after.weights))


def _product(flow: Dataflow, value: relax.Var, call: relax.Call) -> Outcome:
    weights: Array | None = constant(call.args[1])
    if weights is None:
        return Refusal("matmul", "two tensors that are computed")
    if weights.ndim != 2:
        return Refusal("matmul", "a batch of weights")
    inputs, outputs = weights.shape
    after = epilogue(flow, value)
    rows = prod(shape(value)[:-1])
    shortcut = () if after.shortcut is None else ((after.shortcut, (rows, outputs)),)
    problem = PointwiseProblem(rows, inputs, outputs, **after.fields)
    activations = ((call.args[0], (rows, inputs)), *shortcut)
    return Match(after.result, "pointwise", problem, activations, (weights.T, *after.weights))


def _joined(flow: Dataflow, value: relax.Expr) -> tuple[relax.Expr, relax.Expr] | None:
    """The first channels and the whole image of concat(first, strided_slice(image, [c:])), nothing else using it."""
    call = flow.call(value, "relax.concat")
    if call is None or not flow.used_once(value) or call.attrs.axis not in (3, -1) or len(call.args[0].fields) != 2:
        return None
    first, rest = call.args[0].fields
    channels = shape(first)[-1]
    if (cut := flow.channels(rest)) is None or cut[1:] != (channels, shape(cut[0])[-1]):
        return None
    return first, cut[0]
