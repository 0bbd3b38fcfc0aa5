"""Following a value's channels forward: who reads them, through permutations, views and means, and what it absorbs.

An affine map per channel, s·x + t, commutes with everything that only moves values, and with means over other axes, as
long as the channels stay an axis of their own. A linear layer over that axis or an unpadded convolution takes it into
its weights:

    W(s·x + t) + b  ->  (W·s)x + (b + Σ W·t)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import CONVOLUTIONS, argument, constant, has_constant_weights, is_call, permutation, shape
from edge.lowering.layers import LINEAR, bias_or_zeros, set_layer

MEAN = torch.ops.aten.mean.dim
POOLING = torch.ops.aten.adaptive_avg_pool2d.default
VIEWS = (
    torch.ops.aten.view.default,
    torch.ops.aten.reshape.default,
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.flatten.using_ints,
    torch.ops.aten.squeeze.dims,
    torch.ops.aten.squeeze.dim,
    torch.ops.aten.unsqueeze.default,
)


def readers(value: Node, axis: int) -> Iterator[tuple[Node, int]]:
    """What reads a value once all that moves or averages it is seen through, with the channels' axis there.

    Args:
        value: any node.
        axis: of its output, counted from 0, that the channels are.
    """
    for user in value.users:
        moved = _moved(user, axis)
        if moved is None:
            yield user, axis
        else:
            yield from readers(user, moved)


def _moved(node: Node, axis: int) -> int | None:
    """Where the channels' axis of a node's input is in its output; None if the node mixes or changes channels."""
    if (order := permutation(node)) is not None:
        return order.index(axis)
    if is_call(node, MEAN):
        dims = {dim % len(shape(argument(node, "self"))) for dim in argument(node, "dim")}
        dropped = sum(dim < axis for dim in dims) if not argument(node, "keepdim") else 0
        return None if axis in dims else axis - dropped
    if is_call(node, POOLING):
        return axis if axis < len(shape(node)) - 2 else None
    if is_call(node, *VIEWS):
        source = node.args[0]
        assert isinstance(source, Node)
        return _kept(shape(source), axis, shape(node))
    return None


def _kept(before: torch.Size, axis: int, after: torch.Size) -> int | None:
    """The axis of a view that holds the same positions as ``axis`` did before, None if they are spread or merged."""
    leading = before[:axis].numel()
    found = (place for place in range(len(after)) if after[place] == before[axis] and after[:place].numel() == leading)
    return next(found, None)


def obstacle(reader: Node, axis: int) -> str | None:
    """Why a layer cannot take an affine map of the values it reads into its weights; None if it can.

    Args:
        reader: as ``readers`` gives it.
        axis: of the channels in what it reads.
    """
    if reader.op == "output":
        return "its output leaves the program"
    if is_call(reader, LINEAR):
        if axis != len(shape(argument(reader, "input"))) - 1:
            return f"{reader.name} after it is not over its channels"
    elif is_call(reader, *CONVOLUTIONS):
        if axis != 1:
            return f"{reader.name} after it is not over its channels"
        padding = argument(reader, "padding")
        if any(padding) if isinstance(padding, (list, tuple)) else padding not in (0, "valid"):
            return f"{reader.name} pads its input, and a shift does not commute with zero padding"
    else:
        return f"{reader.name} after it is not a convolution or a linear layer"
    return None if has_constant_weights(reader) else f"{reader.name} computes its weights"


def absorb(module: GraphModule, reader: Node, scale: Tensor, shift: Tensor) -> None:
    """Take s·x + t, (C,) each, into the weights of a layer that reads it; the layer then reads x in its place."""
    weight = constant(module, argument(reader, "weight"))
    groups = argument(reader, "groups") if is_call(reader, *CONVOLUTIONS) else 1
    bias = bias_or_zeros(module, reader) + (weight * _per_input_channel(shift, weight, groups)).flatten(1).sum(1)
    set_layer(module, reader, argument(reader, "input"), weight * _per_input_channel(scale, weight, groups), bias)


def _per_input_channel(values: Tensor, weight: Tensor, groups: int) -> Tensor:
    """(C,) to a shape that multiplies a weight (O, C / groups, …): output channel o reads its own group's channels."""
    per_group = values.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
    return per_group.reshape(weight.shape[0], weight.shape[1], *[1] * (weight.ndim - 2))
