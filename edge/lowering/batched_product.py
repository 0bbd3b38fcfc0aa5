"""Multiply batches of matrices with all batch axes in one.

    A B of (…, M, K) and (…, K, N)  ->  reshape(bmm(A′, B′)) of (P, M, K) and (P, K, N)

where P is the product of the batch axes, which both factors share. ExecuTorch spells a product of four axes with two
expansions, which XNNPACK does not take and which cut its program in three.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from edge.lowering.graph import argument, is_call, replace, shape
from edge.lowering.rewrite import Rewrite
from edge.lowering.transposed_product import MATMUL, TRANSPOSE, transposes_matrices

RESHAPE, BMM = torch.ops.aten.reshape.default, torch.ops.aten.bmm.default


def match(module: GraphModule, node: Node) -> Node | None:
    """A product with two batch axes at least."""
    return node if is_call(node, MATMUL) and len(shape(node)) > 3 else None


def check(module: GraphModule, product: Node) -> str | None:
    """Both factors must have the same batch axes."""
    first, second = (shape(argument(product, name))[:-2] for name in ("self", "other"))
    return None if first == second else f"{product.name} repeats one of its factors"


def _flattened(module: GraphModule, factor: Node, before: Node) -> Node:
    """A factor as (P, M, K); a transpose comes after the reshape, which then joins the reshape before it."""
    if transposes_matrices(factor):
        source = _flattened(module, argument(factor, "self"), before)
        with module.graph.inserting_before(before):
            node = module.graph.call_function(TRANSPOSE, (source, 1, 2))
    else:
        with module.graph.inserting_before(before):
            node = module.graph.call_function(RESHAPE, (factor, [-1, *shape(factor)[-2:]]))
    node.meta["val"] = factor.meta["val"].flatten(0, -3)
    return node


def apply(module: GraphModule, product: Node) -> None:
    """Reshape, multiply, reshape back."""
    factors = [_flattened(module, argument(product, name), product) for name in ("self", "other")]
    with module.graph.inserting_before(product):
        batched = module.graph.call_function(BMM, tuple(factors))
        restored = module.graph.call_function(RESHAPE, (batched, list(shape(product))))
    batched.meta["val"] = product.meta["val"].flatten(0, -3)
    replace(product, restored)


REWRITE = Rewrite("batched_product", "A B of (…, M, K) (…, K, N)  ->  reshape(bmm(A, B))", match, check, apply)
