"""LayerNorm over one axis, the channels': what its fold and its channels-first form start from.

LayerNorm(x) = γ·n(x) + β,    n(x) = (x − mean(x)) / √(variance(x) + ε)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import argument, constant, is_call, is_constant, shape

LAYER_NORM = torch.ops.aten.layer_norm.default


@dataclass(frozen=True)
class LayerNorm:
    """A LayerNorm over the last axis whose parameters are constants.

    Attributes:
        node: the operator's.
    """

    node: Node

    @property
    def input(self) -> Node:
        """What is normalised, (…, C)."""
        return argument(self.node, "input")

    @property
    def axis(self) -> int:
        """The channels'."""
        return len(shape(self.node)) - 1

    @property
    def epsilon(self) -> float:
        """Added to the variance."""
        return argument(self.node, "eps")

    @property
    def is_plain(self) -> bool:
        """Whether it has neither scale nor shift."""
        return argument(self.node, "weight") is None and argument(self.node, "bias") is None


def match_layer_norm(node: Node) -> LayerNorm | None:
    """The LayerNorm that is this node, if it is over the last axis only and its parameters are constants."""
    if not is_call(node, LAYER_NORM) or len(argument(node, "normalized_shape")) != 1:
        return None
    parameters = [argument(node, name) for name in ("weight", "bias")]
    return LayerNorm(node) if all(p is None or is_constant(p) for p in parameters) else None


def scale_and_shift(module: GraphModule, norm: LayerNorm) -> tuple[Tensor, Tensor]:
    """γ and β, each (C,), which are 1 and 0 where the norm has none."""
    gamma, beta = argument(norm.node, "weight"), argument(norm.node, "bias")
    some = next(p for p in (gamma, beta) if p is not None)
    like = constant(module, some)
    return (
        constant(module, gamma) if gamma is not None else torch.ones_like(like),
        constant(module, beta) if beta is not None else torch.zeros_like(like),
    )
