"""Take the product of the transposed matrices where the transpose of a product is read.

    (A B)ᵀ  ->  Bᵀ Aᵀ

A transpose on one of the factors, as that of the values in attention, then meets its inverse and both disappear: left
is a transpose of the attention weights, which are smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edge.lowering.graph import argument, is_call, replace, shape
from edge.lowering.rewrite import Rewrite

MATMUL, TRANSPOSE = torch.ops.aten.matmul.default, torch.ops.aten.transpose.int


@dataclass(frozen=True)
class TransposedProduct:
    """A transposed product of which one factor is transposed."""

    transposed: Node
    product: Node


def transposes_matrices(node: object) -> bool:
    """Whether a node exchanges the last two axes of its input."""
    if not is_call(node, TRANSPOSE):
        return False
    assert isinstance(node, Node)
    rank = len(shape(node))
    return {argument(node, "dim0") % rank, argument(node, "dim1") % rank} == {rank - 2, rank - 1}


def match(module: GraphModule, node: Node) -> TransposedProduct | None:
    """A transposed product, if one transpose at least disappears."""
    if not transposes_matrices(node) or not is_call(product := argument(node, "self"), MATMUL):
        return None
    factors = product.all_input_nodes
    if not any(transposes_matrices(factor) for factor in factors) or any(len(shape(f)) < 2 for f in factors):
        return None
    return TransposedProduct(node, product)


def check(module: GraphModule, found: TransposedProduct) -> str | None:
    """Nothing else may read the product as it is."""
    return f"{found.product.name} has other users" if len(found.product.users) > 1 else None


def apply(module: GraphModule, found: TransposedProduct) -> None:
    """Multiply the transposed factors in the opposite order."""

    def transposed(factor: Node) -> Node:
        if transposes_matrices(factor):
            return argument(factor, "self")
        with module.graph.inserting_before(found.transposed):
            node = module.graph.call_function(TRANSPOSE, (factor, -2, -1))
        node.meta["val"] = factor.meta["val"].transpose(-2, -1)
        return node

    first, second = (argument(found.product, name) for name in ("self", "other"))
    factors = (transposed(second), transposed(first))
    with module.graph.inserting_before(found.transposed):
        product = module.graph.call_function(MATMUL, factors)
    replace(found.transposed, product)


REWRITE = Rewrite("transposed_product", "(A B)ᵀ  ->  Bᵀ Aᵀ", match, check, apply)
