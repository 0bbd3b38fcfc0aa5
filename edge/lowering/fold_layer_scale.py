"""Fold a constant factor on every channel, or on all, into the layer that made them.

    γ·(W∗x + b)  ->  (γ·W)∗x + γ·b

Layer scale is such a factor, and so is the ½ of an average of two heads. Permutations may lie between, as the one from
the channels last, in which a linear layer computes, to the channels first.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import argument, constant, has_constant_weights, is_call, permutation, replace, shape
from edge.lowering.layers import LAYERS, bias_or_zeros, channel_axis, constant_factor, set_layer
from edge.lowering.rewrite import Rewrite


@dataclass(frozen=True)
class LayerScale:
    """A constant factor on the output of a layer.

    Attributes:
        product: the multiplication.
        value: what it multiplies: the layer's output, or permutations of it.
        layer: a convolution or a linear layer.
        factor: one number, or one for each position along an axis of the value.
        axis: that axis in the layer's own output; None for one number.
        shared: a node on the way that others read too, if there is one.
    """

    product: Node
    value: Node
    layer: Node
    factor: Tensor
    axis: int | None
    shared: Node | None


def match(module: GraphModule, node: Node) -> LayerScale | None:
    """A product with a constant that differs along one axis at most, of a layer's output."""
    scaled = constant_factor(module, node)
    if scaled is None:
        return None
    value, factor = scaled
    rank = len(shape(value))
    sides = (*[1] * (rank - factor.ndim), *factor.shape)
    varying = [axis for axis, side in enumerate(sides) if side > 1]
    if len(varying) > 1:
        return None
    axis = varying[0] if varying else None
    source, shared = value, None
    while True:
        shared = shared or (source if len(source.users) > 1 else None)
        if is_call(source, *LAYERS):
            return LayerScale(node, value, source, factor.flatten(), axis, shared)
        order = permutation(source)
        if order is None:
            return None
        source, axis = argument(source, "self"), None if axis is None else order[axis]


def check(module: GraphModule, scale: LayerScale) -> str | None:
    """Nothing else may read the layer's output, and the factors must be its channels'."""
    if scale.shared:
        return f"{scale.shared.name} has other users, which need it without the factor"
    if not has_constant_weights(scale.layer):
        return f"{scale.layer.name} computes its weights"
    if scale.axis is not None and scale.axis != channel_axis(scale.layer):
        return f"the factors are not those of {scale.layer.name}'s channels"
    return None


def apply(module: GraphModule, scale: LayerScale) -> None:
    """Scale the layer's weight and bias."""
    weight = constant(module, argument(scale.layer, "weight"))
    factor = scale.factor.to(weight.dtype)
    scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    bias = bias_or_zeros(module, scale.layer) * factor
    set_layer(module, scale.layer, argument(scale.layer, "input"), scaled, bias)
    replace(scale.product, scale.value)


REWRITE = Rewrite("fold_layer_scale", "γ·(W∗x + b)  ->  (γ·W)∗x + γ·b", match, check, apply)
