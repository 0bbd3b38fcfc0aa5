"""Fold the scale of attention scores into the layer that makes the queries, or else the keys.

    (Q K)·s  ->  ((s·W_q)∗x + s·b_q) K        with Q = W_q∗x + b_q

One number commutes with everything linear, so that reshapes and permutations may lie between the layer and the product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import argument, constant, has_constant_weights, is_call, replace
from edge.lowering.layers import LAYERS, bias_or_zeros, constant_factor, set_layer
from edge.lowering.rewrite import Rewrite

MATRIX_PRODUCTS = (torch.ops.aten.matmul.default, torch.ops.aten.bmm.default)
ARRANGEMENTS = (
    torch.ops.aten.reshape.default,
    torch.ops.aten.permute.default,
    torch.ops.aten.transpose.int,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.squeeze.dim,
    torch.ops.aten.expand.default,
)
"""Operators that move values and compute nothing."""


@dataclass(frozen=True)
class AttentionScale:
    """One number on the product of two matrices.

    Attributes:
        scaled: the multiplication.
        scores: what it multiplies: the matrix product, or rearrangements of it.
        product: the matrix product.
        factor: the number, as a tensor without axes.
    """

    scaled: Node
    scores: Node
    product: Node
    factor: Tensor


def match(module: GraphModule, node: Node) -> AttentionScale | None:
    """A matrix product times one constant number."""
    found = constant_factor(module, node)
    if found is None or found[1].numel() != 1:
        return None
    scores, factor = found
    product = scores
    while is_call(product, *ARRANGEMENTS):
        product = argument(product, "self")
    return AttentionScale(node, scores, product, factor.reshape(())) if is_call(product, *MATRIX_PRODUCTS) else None


def _layer(operand: Node) -> Node | str:
    """The layer an operand comes from, or what is in the way."""
    while True:
        if len(operand.users) > 1:
            return f"{operand.name} has other users"
        if is_call(operand, *LAYERS):
            return operand if has_constant_weights(operand) else f"{operand.name} computes its weights"
        if not is_call(operand, *ARRANGEMENTS):
            return f"{operand.name} is neither a layer's output nor a rearrangement of one"
        operand = argument(operand, "self")


def _operands(scale: AttentionScale) -> tuple[Node, Node]:
    first, second = scale.product.all_input_nodes
    return first, second


def check(module: GraphModule, scale: AttentionScale) -> str | None:
    """The product must be read through the scale alone, and one of its operands must come from a layer."""
    node = scale.scores
    while True:
        if len(node.users) > 1:
            return f"{node.name} has other users, which need it without the scale"
        if node is scale.product:
            break
        node = argument(node, "self")
    obstacles = [layer for operand in _operands(scale) if isinstance(layer := _layer(operand), str)]
    return "; ".join(obstacles) if len(obstacles) == 2 else None


def apply(module: GraphModule, scale: AttentionScale) -> None:
    """Scale the first operand's layer, or the second's if the first has none."""
    layer = next(layer for operand in _operands(scale) if isinstance(layer := _layer(operand), Node))
    weight = constant(module, argument(layer, "weight"))
    factor = scale.factor.to(weight.dtype)
    set_layer(module, layer, argument(layer, "input"), weight * factor, bias_or_zeros(module, layer) * factor)
    replace(scale.scaled, scale.scores)


REWRITE = Rewrite("fold_attention_scale", "(Q K)·s  ->  (s·Q) K", match, check, apply)
