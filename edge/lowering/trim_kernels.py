"""Drop a kernel's outer taps that are zero or that no output multiplies with the image, and the padding they need.

    W∗x  ->  W[a : k - a]∗x,  padded by a·dilation less

A kernel that is larger than the image has taps that only ever meet padding: of 51 x 51 on an image of 14 x 14, 27 x 27
are left, and a 3 x 3 on a single pixel is a 1 x 1. Convolutions pad both sides alike, so as much goes on either side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import CONVOLUTIONS, add_constant, argument, constant, is_call, is_constant, shape
from edge.lowering.rewrite import Rewrite


@dataclass(frozen=True)
class Trimming:
    """A convolution with outer taps to drop.

    Attributes:
        conv: the node.
        padding: of each axis, as it is.
        taps: dropped on either side of each axis.
    """

    conv: Node
    padding: tuple[int, ...]
    taps: tuple[int, ...]


def _padding(conv: Node, kernel: torch.Size) -> tuple[int, ...] | None:
    """Of each axis; None where "same" pads one side more."""
    padding = argument(conv, "padding")
    if padding == "valid":
        return (0,) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(argument(conv, "dilation"), kernel, strict=True)]
        return None if any(total % 2 for total in totals) else tuple(total // 2 for total in totals)
    return tuple(padding)


def _dead(alive: Tensor, length: int, outputs: int, stride: int, dilation: int, padding: int) -> int:
    """Outer taps of one axis that can go on either side; at least one tap stays.

    Args:
        alive: (k,), whether any weight at a tap is not zero.
        length: of the image.
        outputs: along the axis.
        stride: of the convolution, as the next two.
        dilation: of the kernel.
        padding: on either side.
    """
    first = torch.arange(len(alive)) * dilation - padding  # what the first output multiplies with each tap
    places = first[:, None] + torch.arange(outputs) * stride
    used = (alive & ((places >= 0) & (places < length)).any(1)).nonzero().flatten()
    ends = (used[0], len(alive) - 1 - used[-1]) if len(used) else ((len(alive) - 1) // 2,)
    return min(*map(int, ends), padding // dilation)


def match(module: GraphModule, node: Node) -> Trimming | None:
    """A convolution with constant weights and dead taps on both ends of an axis."""
    if not is_call(node, *CONVOLUTIONS) or not is_constant(argument(node, "weight")):
        return None
    weight = constant(module, argument(node, "weight"))
    kernel, image, result = weight.shape[2:], shape(argument(node, "input"))[2:], shape(node)[2:]
    if (padding := _padding(node, kernel)) is None:
        return None
    stride, dilation = argument(node, "stride"), argument(node, "dilation")
    axes = range(len(kernel))
    others = [[*(0, 1), *(axis + 2 for axis in axes if axis != this)] for this in axes]
    taps = tuple(
        _dead(
            (weight != 0).sum(others[axis]) > 0, image[axis], result[axis], stride[axis], dilation[axis], padding[axis]
        )
        for axis in axes
    )
    return Trimming(node, padding, taps) if any(taps) else None


def check(module: GraphModule, trimming: Trimming) -> str | None:
    """Always possible."""
    return None


def apply(module: GraphModule, trimming: Trimming) -> None:
    """Give the convolution what is left of its kernel and its padding."""
    conv = trimming.conv
    name = argument(conv, "weight")
    weight, dilation = constant(module, name), argument(conv, "dilation")
    for axis, taps in enumerate(trimming.taps, 2):
        weight = weight.narrow(axis, taps, weight.shape[axis] - 2 * taps)
    trimmed = add_constant(module, f"{name.target}_trimmed", weight, before=conv)
    padding = [p - t * d for p, t, d in zip(trimming.padding, trimming.taps, dilation, strict=True)]
    operator = {1: torch.ops.aten.conv1d, 2: torch.ops.aten.conv2d, 3: torch.ops.aten.conv3d}[len(padding)]
    rest = (argument(conv, "bias"), argument(conv, "stride"), padding, dilation, argument(conv, "groups"))
    conv.target, conv.args, conv.kwargs = operator.default, (argument(conv, "input"), trimmed, *rest), {}


REWRITE = Rewrite("trim_kernels", "W∗x  ->  W[a : k - a]∗x, outer taps zero or never on the image", match, check, apply)
