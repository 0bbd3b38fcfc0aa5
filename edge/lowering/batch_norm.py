"""BatchNorm in inference is one scale and one shift per channel; both folds and the leftover form start here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import BATCH_NORM, argument, constant, is_call, is_constant, is_item


@dataclass(frozen=True)
class BatchNorm:
    """A BatchNorm whose statistics are constants.

    Attributes:
        call: the operator's node.
        output: its item 0, which is what the network uses.
    """

    call: Node
    output: Node

    @property
    def input(self) -> Node:
        """What is normalised, (N, C, …)."""
        return argument(self.call, "input")


def match_batch_norm(node: Node) -> BatchNorm | None:
    """The BatchNorm whose output is this node, if all its parameters are constants."""
    if not is_item(node, 0) or not is_call(call := node.args[0], BATCH_NORM):
        return None
    assert isinstance(call, Node)
    parameters = [argument(call, name) for name in ("weight", "bias", "running_mean", "running_var")]
    if not all(p is None or is_constant(p) for p in parameters):
        return None
    return BatchNorm(call, node)


def scale_and_shift(module: GraphModule, norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """S = γ / √(σ² + ε) and t = β − μ·s, each (C,), so that BatchNorm(x) = s·x + t."""
    mean = constant(module, argument(norm.call, "running_mean"))
    variance = constant(module, argument(norm.call, "running_var"))
    gamma, beta = argument(norm.call, "weight"), argument(norm.call, "bias")
    scale = torch.rsqrt(variance + argument(norm.call, "eps"))
    if gamma is not None:
        scale = scale * constant(module, gamma)
    shift = -mean * scale
    if beta is not None:
        shift = shift + constant(module, beta)
    return scale, shift
