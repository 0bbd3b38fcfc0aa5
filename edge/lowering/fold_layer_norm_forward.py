"""Fold a LayerNorm's scale and shift into the linear layers and unpadded convolutions after it.

    W(γ·n(x) + β) + b  ->  (W·γ)n(x) + (b + Σ W·β)

Permutations and views may lie between. What a shortcut or a padded convolution reads keeps its affine: the one needs
it as it is, the other sees zeros beyond the border and not β (in ConvNeXt, the norm after the embedding, which both
read).
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from edge.lowering.channel_walk import absorb, obstacle, readers
from edge.lowering.graph import argument
from edge.lowering.layer_norm import LayerNorm, match_layer_norm, scale_and_shift
from edge.lowering.rewrite import Rewrite


def match(module: GraphModule, node: Node) -> LayerNorm | None:
    """A LayerNorm over the channels that has a scale or a shift."""
    norm = match_layer_norm(node)
    return norm if norm and not norm.is_plain else None


def check(module: GraphModule, norm: LayerNorm) -> str | None:
    """Every reader must be a linear layer or an unpadded convolution with constant weights."""
    found = (obstacle(reader, axis) for reader, axis in readers(norm.node, norm.axis))
    return next((reason for reason in found if reason), None)


def apply(module: GraphModule, norm: LayerNorm) -> None:
    """Give every reader its own folded weight and bias, and leave a norm without parameters."""
    scale, shift = scale_and_shift(module, norm)
    for reader, _ in list(readers(norm.node, norm.axis)):
        absorb(module, reader, scale, shift)
    norm.node.args = (norm.input, argument(norm.node, "normalized_shape"), None, None, norm.epsilon)
    norm.node.kwargs = {}


REWRITE = Rewrite("fold_layer_norm_forward", "W(γ·n(x) + β) + b  ->  (W·γ)n(x) + (b + Σ W·β)", match, check, apply)
