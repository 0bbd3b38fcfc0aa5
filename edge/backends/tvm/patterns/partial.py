"""Convolutions of an image's first channels as FasterNet has them: the partial template.

conv2d(strided_slice(x, [:c]), w)  ->  partial(x, w), which reads the channels where they lie
"""

from __future__ import annotations

from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant, shape
from edge.backends.tvm.patterns.matching import Match, Outcome, epilogue
from edge.kernels.partial import PartialProblem


def match(flow: Dataflow, value: relax.Var) -> Outcome:
    """The match that is a value; convolutions of another form are the convolution pattern's."""
    call = flow.call(value, "relax.nn.conv2d")
    cut = flow.channels(call.args[0]) if call is not None else None
    if call is None or cut is None or cut[1] != 0:
        return None
    image, _, convolved = cut
    weights, attributes = constant(call.args[1]), call.attrs
    kernel = shape(call.args[1])[1]
    as_in_fasternet = (
        weights is not None
        and weights.shape == (convolved, kernel, kernel, convolved)
        and kernel % 2 == 1
        and kernel > 1
        and set(attributes.strides) == set(attributes.dilation) == {1}
        and set(attributes.padding) == {kernel // 2}
        and shape(image)[0] == 1
        and epilogue(flow, value).result.same_as(value)
    )
    if weights is None or not as_in_fasternet:
        return None
    _, height, width, channels = shape(image)
    problem = PartialProblem(height, width, channels, convolved, kernel)
    activations = ((image, (height, width, channels)),)
    return Match(value, "partial", problem, activations, (weights.transpose(0, 3, 1, 2),))
