"""Fold a BatchNorm into the convolution before it.

    s·(W∗x + b) + t  ->  (s·W)∗x + (s·b + t)

with s, t of ``batch_norm.scale_and_shift`` per output channel. Exact for any padding, stride, dilation and grouping.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from edge.lowering.batch_norm import BatchNorm, match_batch_norm, scale_and_shift
from edge.lowering.graph import (
    CONVOLUTIONS,
    argument,
    constant,
    has_constant_weights,
    is_call,
    replace,
    set_convolution,
)
from edge.lowering.rewrite import Rewrite


def match(module: GraphModule, node: Node) -> BatchNorm | None:
    """A BatchNorm whose input is a convolution."""
    norm = match_batch_norm(node)
    return norm if norm and is_call(norm.input, *CONVOLUTIONS) else None


def check(module: GraphModule, norm: BatchNorm) -> str | None:
    """Nothing else may read the convolution's own output, and its weights must be constants."""
    if len(norm.input.users) > 1:
        return f"{norm.input.name} has other users, which need its output without the norm"
    if not has_constant_weights(norm.input):
        return f"{norm.input.name} computes its weights"
    return None


def apply(module: GraphModule, norm: BatchNorm) -> None:
    """Put the folded weight and bias in place of the old ones."""
    conv = norm.input
    scale, shift = scale_and_shift(module, norm)
    weight = constant(module, argument(conv, "weight"))
    bias_node = argument(conv, "bias")
    bias = constant(module, bias_node) if bias_node is not None else torch.zeros_like(shift)
    per_output_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
    set_convolution(module, conv, argument(conv, "input"), weight * per_output_channel, bias * scale + shift)
    replace(norm.output, conv)


REWRITE = Rewrite("fold_batch_norm_backward", "s·(W∗x + b) + t  ->  (s·W)∗x + (s·b + t)", match, check, apply)
