"""Depthwise strips of one image, along the rows and along the columns, added up: the shift-wise template.

conv2d(x, across, groups=channels) + conv2d(x, down, groups=channels)  ->  shiftwise(x, across, down), with the biases
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant, shape
from edge.backends.tvm.patterns.depthwise import SMALL
from edge.backends.tvm.patterns.matching import Match, Outcome, epilogue
from edge.kernels.shiftwise import SIDE, Shiftwise
from edge.kernels.template import Array


@dataclass(frozen=True)
class _Strip:
    """A depthwise convolution that keeps the image's size.

    Attributes:
        image: its input.
        taps: (rows, columns, channels).
        top, left: of the first tap, from the output's place.
    """

    image: relax.Expr
    taps: Array
    top: int
    left: int


def match(flow: Dataflow, value: relax.Var) -> Outcome:
    """The match that begins at the strip that is computed first."""
    if (this := _strip(flow, value)) is None:
        return None
    after = epilogue(flow, value)
    if after.shortcut is None or after.activation != "none" or (other := _beneath(flow, after.shortcut)) is None:
        return None
    strips, bias = (this, other[0]), other[1] if after.bias is None else after.bias + other[1]
    across = next((strip for strip in strips if strip.taps.shape[0] == SIDE and strip.top == -1), None)
    down = next((strip for strip in strips if strip.taps.shape[1] == SIDE and strip.left == -1), None)
    if across is None or down is None or across is down or not across.image.same_as(down.image):
        return None
    if max(across.taps.shape[1], down.taps.shape[0]) <= SMALL:
        return None
    _, height, width, channels = shape(across.image)
    problem, *taps = Shiftwise.of((height, width, channels), across.taps, down.taps, across.left, down.top)
    if not problem.rep:
        return None
    image = (across.image, (1, height, width, channels))
    return Match(after.result, "shiftwise", problem, (image,), (*taps, bias))


def _strip(flow: Dataflow, value: relax.Expr) -> _Strip | None:
    """A value that is such a convolution."""
    call = flow.call(value, "relax.nn.conv2d")
    weights = constant(call.args[1]) if call is not None else None
    if call is None or weights is None:
        return None
    attributes, (batch, *size, channels) = call.attrs, shape(call.args[0])
    if batch != 1 or attributes.groups != channels or len(weights) != channels or channels == 1:
        return None
    if {*attributes.dilation, *attributes.strides} != {1} or list(shape(value)[1:3]) != size:
        return None
    top, left, *_ = map(int, attributes.padding)
    return _Strip(call.args[0], weights[..., 0].transpose(1, 2, 0), -top, -left)


def _beneath(flow: Dataflow, value: relax.Expr) -> tuple[_Strip, Array] | None:
    """The convolution beneath the biases that were added to it, and their sum; None if anything else uses it."""
    bias = np.zeros(shape(value)[-1], np.float32)
    while flow.used_once(value):
        if (strip := _strip(flow, value)) is not None:
            return strip, bias
        if (call := flow.call(value, "relax.add")) is None:
            return None
        constants = [added for argument in call.args if (added := constant(argument)) is not None]
        if len(constants) != 1 or not constants[0].size == constants[0].shape[-1] == len(bias):
            return None
        bias = bias + constants[0].reshape(-1)
        (value,) = (argument for argument in call.args if constant(argument) is None)
    return None
