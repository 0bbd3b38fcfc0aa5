"""Convolutions with dense kernels of any size, strides and padding: the convolution template.

conv2d(x, w)                                  ->  convolution(x, w), with what follows as its epilogue
conv2d(strided_slice(x, [:c]), w)             ->  convolution(x, w), which reads the first channels where they lie
conv2d(permute_dims(image, NCHW -> NHWC), w)  ->  convolution(image, w)
"""

from __future__ import annotations

from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant, shape
from edge.backends.tvm.patterns.matching import Match, Outcome, Refusal, epilogue
from edge.kernels.convolution_problem import ConvolutionProblem


def match(flow: Dataflow, value: relax.Var) -> Outcome:
    """The match that begins at a value."""
    call = flow.call(value, "relax.nn.conv2d")
    if call is None:
        return None
    weights, attributes = constant(call.args[1]), call.attrs
    if weights is None:
        return Refusal("conv2d", "weights that are not constant")
    if attributes.groups != 1:
        return Refusal("conv2d", "groups of several channels")
    if set(attributes.dilation) != {1}:
        return Refusal("conv2d", "dilation")
    image, layout = call.args[0], "NHWC"
    if shape(image)[0] != 1:
        return Refusal("conv2d", "a batch")
    if (cut := flow.channels(image)) is not None and cut[1] == 0:
        image = cut[0]
    elif (planes := flow.planes(image)) is not None:
        image, layout = planes, "NCHW"
    _, *lengths = shape(image)
    height, width, channels = lengths if layout == "NHWC" else (*lengths[1:], lengths[0])
    outputs, *kernel, inputs = weights.shape
    top, left, bottom, right = map(int, attributes.padding)
    down, across = map(int, attributes.strides)
    after = epilogue(flow, value)
    problem = ConvolutionProblem(
        *(height, width, channels, inputs, outputs),
        kernel=(kernel[0], kernel[1]),
        strides=(down, across),
        padding=(top, left, bottom, right),
        layout=layout,
        **after.fields,
    )
    shortcut = () if after.shortcut is None else ((after.shortcut, (problem.rows, outputs)),)
    activations = ((image, tuple(lengths)), *shortcut)
    return Match(after.result, "convolution", problem, activations, (weights.transpose(0, 3, 1, 2), *after.weights))
