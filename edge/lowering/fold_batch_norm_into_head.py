"""Fold a BatchNorm into the linear layers behind it, through the mean over all positions that may lie between.

    W·mean(s·x + t) + b  ->  (W·s)·mean(x) + (b + W·t)

with s, t per channel: a scale and a shift of every position are those of the mean.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import GraphModule, Node

from edge.lowering.batch_norm import BatchNorm, match_batch_norm, scale_and_shift
from edge.lowering.graph import argument, constant, has_constant_weights, is_call, replace, shape
from edge.lowering.layers import LINEAR, bias_or_zeros, set_layer
from edge.lowering.rewrite import Rewrite

POOLINGS = (torch.ops.aten.mean.dim, torch.ops.aten.adaptive_avg_pool2d.default)
RESHAPE = torch.ops.aten.reshape.default


def _keeps_channels(node: Node) -> bool:
    """Whether a node averages positions or rearranges them, with batch and channels still in front."""
    if is_call(node, torch.ops.aten.mean.dim):
        rank = len(shape(argument(node, "self")))
        return all(dim % rank > 1 for dim in argument(node, "dim"))
    if not is_call(node, *POOLINGS, RESHAPE):
        return False
    return shape(node)[:2] == shape(argument(node, "self"))[:2]


def _ends(node: Node) -> Iterator[Node]:
    """What reads a value, seen through the poolings and reshapes after it."""
    for user in node.users:
        if _keeps_channels(user):
            yield from _ends(user)
        else:
            yield user


def match(module: GraphModule, node: Node) -> BatchNorm | None:
    """A BatchNorm with a linear layer behind it."""
    norm = match_batch_norm(node)
    return norm if norm and any(is_call(end, LINEAR) for end in _ends(norm.output)) else None


def check(module: GraphModule, norm: BatchNorm) -> str | None:
    """Everything behind it must be a linear layer over its channels, with constant weights."""
    for end in _ends(norm.output):
        if end.op == "output":
            return "its output leaves the program"
        if not is_call(end, LINEAR) or len(shape(argument(end, "input"))) != 2:
            return f"{end.name} behind it is not a linear layer over its channels"
        if not has_constant_weights(end):
            return f"{end.name} computes its weights"
    return None


def apply(module: GraphModule, norm: BatchNorm) -> None:
    """Give every linear layer its own folded weight and bias."""
    scale, shift = scale_and_shift(module, norm)
    for linear in list(_ends(norm.output)):
        weight = constant(module, argument(linear, "weight"))
        bias = bias_or_zeros(module, linear) + weight @ shift
        set_layer(module, linear, argument(linear, "input"), weight * scale, bias)
    replace(norm.output, norm.input)


REWRITE = Rewrite(
    "fold_batch_norm_into_head", "W·mean(s·x + t) + b  ->  (W·s)·mean(x) + (b + W·t)", match, check, apply
)
