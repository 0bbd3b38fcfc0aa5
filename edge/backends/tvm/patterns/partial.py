"""Convolutions of an image's first channels: the partial template.

conv2d(strided_slice(x, [:c]), w)  ->  partial(x, w), which reads the channels where they lie
"""

from __future__ import annotations

from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant, shape
from edge.backends.tvm.patterns.matching import Match, Outcome, Refusal
from edge.kernels.partial import PartialProblem


def match(flow: Dataflow, value: relax.Var) -> Outcome:
    """The match that begins at a value."""
    call = flow.call(value, "relax.nn.conv2d")
    cut = flow.channels(call.args[0]) if call is not None else None
    if call is None or cut is None or cut[1] != 0:
        return None
    image, _, convolved = cut
    weights, attributes = constant(call.args[1]), call.attrs
    kernel = shape(call.args[1])[1]
    if weights is None:
        return Refusal("conv2d", "weights that are not constant")
    if weights.shape != (convolved, kernel, kernel, convolved) or attributes.groups != 1:
        return Refusal("conv2d", "a partial convolution that changes the number of channels, or is not square")
    if set(attributes.strides) != {1} or set(attributes.dilation) != {1}:
        return Refusal("conv2d", "a partial convolution with a stride or dilation")
    if set(attributes.padding) != {kernel // 2} or kernel % 2 == 0 or kernel == 1:
        return Refusal("conv2d", "a partial convolution whose result has another size")
    batch, height, width, channels = shape(image)
    if batch != 1:
        return Refusal("conv2d", "a batch")
    problem = PartialProblem(height, width, channels, convolved, kernel)
    activations = ((image, (height, width, channels)),)
    return Match(value, "partial", problem, activations, (weights.transpose(0, 3, 1, 2),))
