"""Convolutions and linear layers: their weights out and in, and the constant factors on what they give."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import (
    CONVOLUTIONS,
    add_weights,
    argument,
    constant,
    is_call,
    is_constant,
    set_convolution,
    shape,
)

LINEAR = torch.ops.aten.linear.default
LAYERS = (*CONVOLUTIONS, LINEAR)

ADDITION = torch.ops.aten.add.Tensor
PRODUCTS = (torch.ops.aten.mul.Tensor, torch.ops.aten.mul.Scalar)
QUOTIENTS = (torch.ops.aten.div.Tensor, torch.ops.aten.div.Scalar)


def channel_axis(layer: Node) -> int:
    """The axis of a layer's output that its weight's first axis makes."""
    return len(shape(layer)) - 1 if layer.target is LINEAR else 1


def bias_or_zeros(module: GraphModule, layer: Node) -> Tensor:
    """The layer's bias, (O,)."""
    node = argument(layer, "bias")
    if node is not None:
        return constant(module, node)
    weight = constant(module, argument(layer, "weight"))
    return weight.new_zeros(weight.shape[0])


def set_layer(module: GraphModule, layer: Node, input: Node, weight: Tensor, bias: Tensor) -> None:
    """Let a convolution or linear layer read another input with another weight (O, I / groups, …) and bias (O,)."""
    if layer.target is not LINEAR:
        set_convolution(module, layer, input, weight, bias)
        return
    layer.args, layer.kwargs = (input, *add_weights(module, layer, weight, bias)), {}


def summands(node: Node) -> tuple[object, object] | None:
    """Both sides of a plain addition."""
    if not is_call(node, ADDITION) or argument(node, "alpha") != 1:
        return None
    return argument(node, "self"), argument(node, "other")


def constant_factor(module: GraphModule, node: Node) -> tuple[Node, Tensor] | None:
    """For a product or quotient of a value and a constant: the value, and the factor on it."""
    if is_call(node, *PRODUCTS):
        left, right = argument(node, "self"), argument(node, "other")
        if is_constant(left):
            left, right = right, left
    elif is_call(node, *QUOTIENTS):
        left, right = argument(node, "self"), argument(node, "other")
    else:
        return None
    if not isinstance(left, Node) or is_constant(left) or (isinstance(right, Node) and not is_constant(right)):
        return None
    factor = constant(module, right) if isinstance(right, Node) else torch.tensor(right, dtype=torch.float64)
    if shape(node) != shape(left):
        return None
    return left, factor.reciprocal() if node.target in QUOTIENTS else factor
