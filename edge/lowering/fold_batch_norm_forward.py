"""Fold a BatchNorm into the unpadded convolutions after it (the pyramid's norms into the FPN's lateral 1x1).

    W∗(s·x + t) + b  ->  (W·s)∗x + (b + Σ W·t)

with s, t per input channel. The sum runs over input channels and taps. A padded convolution sees zeros, not t, beyond
the border: there the fold is not exact and is refused.
"""

from __future__ import annotations

from torch import Tensor
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
    """Any BatchNorm that still stands."""
    return match_batch_norm(node)


def _obstacle(user: Node, norm: BatchNorm) -> str | None:
    if user.op == "output":
        return "its output leaves the program"
    if not is_call(user, *CONVOLUTIONS) or argument(user, "input") is not norm.output:
        return f"{user.name} after it is not a convolution"
    padding = argument(user, "padding")
    if any(padding) if isinstance(padding, (list, tuple)) else padding not in (0, "valid"):
        return f"{user.name} pads its input, and a shift does not commute with zero padding"
    if not has_constant_weights(user):
        return f"{user.name} computes its weights"
    return None


def check(module: GraphModule, norm: BatchNorm) -> str | None:
    """Every user must be an unpadded convolution with constant weights."""
    return next((reason for user in norm.output.users if (reason := _obstacle(user, norm))), None)


def _per_input_channel(values: Tensor, weight: Tensor, groups: int) -> Tensor:
    """(C,) to a shape that multiplies a weight (O, C / groups, …): output channel o reads its own group's channels."""
    per_group = values.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
    return per_group.reshape(weight.shape[0], weight.shape[1], *[1] * (weight.ndim - 2))


def apply(module: GraphModule, norm: BatchNorm) -> None:
    """Give every convolution after the norm its own folded weight and bias."""
    scale, shift = scale_and_shift(module, norm)
    for conv in list(norm.output.users):
        weight = constant(module, argument(conv, "weight"))
        bias_node, groups = argument(conv, "bias"), argument(conv, "groups")
        bias = (weight * _per_input_channel(shift, weight, groups)).flatten(1).sum(1)
        if bias_node is not None:
            bias = bias + constant(module, bias_node)
        folded = weight * _per_input_channel(scale, weight, groups)
        set_convolution(module, conv, norm.input, folded, bias)
    replace(norm.output, norm.input)


REWRITE = Rewrite("fold_batch_norm_forward", "W∗(s·x + t) + b  ->  (W·s)∗x + (b + Σ W·t)", match, check, apply)
