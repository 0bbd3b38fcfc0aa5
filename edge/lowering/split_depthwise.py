"""Split a large depthwise convolution into the sum of small, dilated ones.

    w∗x  ->  Σ wᵢ∗x,  wᵢ a few rows of w, evenly spaced around its middle, as a dilated kernel

XNNPACK has fast depthwise kernels for up to 25 taps. What is larger goes a slow way: a 7x7 convolution of 96 channels
at 56x56 takes 6.6 ms of an AMD EPYC's core, its three parts (rows 2 3 4, 1 5 and 0 6) 1.1 ms. Rows around the middle
keep the padding the same on both sides, so nothing is padded or cropped on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edge.lowering.graph import add_constant, argument, beside, constant, has_constant_weights, is_call, replace, shape
from edge.lowering.rewrite import Rewrite

MOST_TAPS = 25
"""Of XNNPACK's largest fast depthwise kernel."""

HEIGHT, WIDTH = 0, 1
CONVOLUTION = torch.ops.aten.conv2d.default


@dataclass(frozen=True)
class Strip:
    """Evenly spaced rows, or columns, of a kernel.

    Attributes:
        first: the first of them.
        step: from one to the next.
        count: of them.
    """

    first: int
    step: int
    count: int

    @property
    def lines(self) -> set[int]:
        """Which rows or columns these are."""
        return {self.first + index * self.step for index in range(self.count)}


def strips(lines: int, most: int) -> tuple[Strip, ...]:
    """Cover a kernel's rows with strips that are symmetric around its middle: the longest first, the densest of those.

    Args:
        lines: how many rows.
        most: of a strip, at least 2.
    """
    rest, found = set(range(lines)), []
    while rest:
        fitting = []
        for first in range((lines + 1) // 2):
            span = lines - 1 - 2 * first
            counts = [1] if span == 0 else [count for count in range(2, most + 1) if span % (count - 1) == 0]
            fitting += [Strip(first, span // max(1, count - 1) or 1, count) for count in counts]
        longest = max((strip for strip in fitting if strip.lines <= rest), key=lambda strip: (strip.count, -strip.step))
        found.append(longest)
        rest -= longest.lines
    return tuple(found)


@dataclass(frozen=True)
class Large:
    """A depthwise convolution of more taps than the limit.

    Attributes:
        conv: the convolution.
        axis: of the kernel, ``HEIGHT`` or ``WIDTH``, that is split.
    """

    conv: Node
    axis: int


def match(module: GraphModule, node: Node) -> Large | None:
    """A depthwise convolution with too many taps, and no dilation."""
    if not is_call(node, CONVOLUTION):
        return None
    _, per_group, *kernel = shape(argument(node, "weight"))
    if per_group != 1 or kernel[HEIGHT] * kernel[WIDTH] <= MOST_TAPS or list(argument(node, "dilation")) != [1, 1]:
        return None
    return Large(node, HEIGHT if kernel[HEIGHT] >= kernel[WIDTH] else WIDTH)


def _strips(large: Large) -> tuple[Strip, ...]:
    kernel = shape(argument(large.conv, "weight"))[2:]
    return strips(kernel[large.axis], MOST_TAPS // kernel[1 - large.axis])


def check(module: GraphModule, large: Large) -> str | None:
    """Two rows at least must fit in a part, and the padding must reach the middle ones from outside."""
    if not has_constant_weights(large.conv):
        return f"{large.conv.name} computes its weights"
    across = shape(argument(large.conv, "weight"))[3 - large.axis]
    if 2 * across > MOST_TAPS:
        return f"two lines of its kernel have {2 * across} taps"
    if argument(large.conv, "padding")[large.axis] < max(strip.first for strip in _strips(large)):
        return f"{large.conv.name} pads too little to leave its outer rows out"
    return None


def apply(module: GraphModule, large: Large) -> None:
    """Convolve with each part, the first with the bias, and add up."""
    conv, axis = large.conv, large.axis
    whole = argument(conv, "weight")
    weight = constant(module, whole)
    total: Node | None = None
    for strip in _strips(large):
        rows = torch.tensor(sorted(strip.lines))
        part = add_constant(module, beside(whole, "strip"), weight.index_select(2 + axis, rows), before=conv)
        padding, dilation = list(argument(conv, "padding")), [1, 1]
        padding[axis] -= strip.first
        dilation[axis] = strip.step
        bias = argument(conv, "bias") if total is None else None
        options = (argument(conv, "stride"), padding, dilation, argument(conv, "groups"))
        with module.graph.inserting_before(conv):
            convolved = module.graph.call_function(CONVOLUTION, (argument(conv, "input"), part, bias, *options))
            convolved.meta["val"] = conv.meta["val"]
            if total is not None:
                convolved = module.graph.call_function(torch.ops.aten.add.Tensor, (total, convolved))
                convolved.meta["val"] = conv.meta["val"]
        total = convolved
    assert total is not None
    replace(conv, total)


REWRITE = Rewrite("split_depthwise", "w∗x  ->  Σ wᵢ∗x, wᵢ a few rows of w", match, check, apply)
