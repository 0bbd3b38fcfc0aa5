"""Bring a partial convolution to the form every backend takes best: slice, convolve, concatenate.

    split(x) -> (a, r);  cat(conv(a), r)      ->  cat(conv(x[:, :c]), x[:, c:])
    x[:, :c] = conv(x[:, :c])                 ->  cat(conv(x[:, :c]), x[:, c:])

Partial convolution: FasterNet (CVPR 2023), equation (4) and appendix, which gives both forms on the left. ExecuTorch's
partitioner cuts the network at every split (14 delegates instead of 1) and refuses the assignment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edge.lowering.graph import CONVOLUTIONS, argument, is_call, is_item, replace, shape
from edge.lowering.rewrite import Rewrite

SPLITS = (
    torch.ops.aten.split_with_sizes.default,
    torch.ops.aten.split.Tensor,
    torch.ops.aten.chunk.default,
)
SLICE = torch.ops.aten.slice.Tensor
CHANNELS = 1


@dataclass(frozen=True)
class PartialConvolution:
    """A convolution of the first channels, joined with the channels it left out.

    Attributes:
        input: x, all channels.
        conv: the convolution.
        joined: the node that holds all channels again.
        convolved: how many channels the convolution reads.
    """

    input: Node
    conv: Node
    joined: Node
    convolved: int


def _from_split(node: Node) -> PartialConvolution | None:
    """cat([conv(split[0]), split[1]], dim=1)."""
    if not is_call(node, torch.ops.aten.cat.default) or argument(node, "dim") not in (CHANNELS, CHANNELS - 4):
        return None
    parts = argument(node, "tensors")
    if len(parts) != 2 or not is_call(conv := parts[0], *CONVOLUTIONS) or not is_item(parts[1], 1):
        return None
    first, split = argument(conv, "input"), parts[1].args[0]
    if not is_item(first, 0) or first.args[0] is not split or not is_call(split, *SPLITS):
        return None
    whole = argument(split, "input" if split.target is torch.ops.aten.chunk.default else "self")
    return PartialConvolution(whole, conv, node, shape(first)[CHANNELS])


def _from_assignment(node: Node) -> PartialConvolution | None:
    """slice_scatter(x, conv(x[:, :c]), dim=1, start=0, end=c): the assignment, made functional by export."""
    if not is_call(node, torch.ops.aten.slice_scatter.default):
        return None
    whole, conv = argument(node, "self"), argument(node, "src")
    if not is_call(conv, *CONVOLUTIONS) or not is_call(first := argument(conv, "input"), SLICE):
        return None
    window = [(argument(n, "dim"), argument(n, "start") or 0, argument(n, "end")) for n in (first, node)]
    if argument(first, "self") is not whole or window[0] != window[1] or window[0][:2] != (CHANNELS, 0):
        return None
    return PartialConvolution(whole, conv, node, shape(first)[CHANNELS])


def match(module: GraphModule, node: Node) -> PartialConvolution | None:
    """Either form that is not yet slice, convolve, concatenate."""
    return _from_split(node) or _from_assignment(node)


def check(module: GraphModule, partial: PartialConvolution) -> str | None:
    """The convolution must keep its number of channels and its size, and only the join may read it."""
    if len(partial.conv.users) > 1:
        return f"{partial.conv.name} has other users"
    pieces = argument(partial.conv, "input").args[0]
    if is_call(pieces, *SPLITS) and len(pieces.users) != 2:
        return f"{pieces.name} makes more than two pieces"
    return None


def apply(module: GraphModule, partial: PartialConvolution) -> None:
    """Read both parts of the input through slices and join them with one concatenation."""
    channels, whole = shape(partial.input)[CHANNELS], partial.input.meta["val"]

    def channel_slice(start: int, end: int, before: Node) -> Node:
        with module.graph.inserting_before(before):
            node = module.graph.call_function(SLICE, (partial.input, CHANNELS, start, end))
        node.meta["val"] = whole[:, start:end]
        return node

    first = channel_slice(0, partial.convolved, partial.conv)
    partial.conv.args = (first, *partial.conv.args[1:])
    rest = channel_slice(partial.convolved, channels, partial.joined)
    with module.graph.inserting_before(partial.joined):
        joined = module.graph.call_function(torch.ops.aten.cat.default, ([partial.conv, rest], CHANNELS))
    replace(partial.joined, joined)


REWRITE = Rewrite(
    "partial_convolution", "cat(conv(a), r) of split(x)  ->  cat(conv(x[:, :c]), x[:, c:])", match, check, apply
)
