"""Compute what depends on no input.

    f(constants)  ->  constant

Among others the biases of attention, looked up for every pair of positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import add_constant, constant, is_constant, replace
from edge.lowering.rewrite import Rewrite


def match(module: GraphModule, node: Node) -> Node | None:
    """An operator with one result that reads constants, or nothing at all."""
    if not isinstance(node.target, torch._ops.OpOverload) or not isinstance(node.meta.get("val"), Tensor):
        return None
    return node if all(is_constant(input) for input in node.all_input_nodes) else None


def check(module: GraphModule, node: Node) -> str | None:
    """It must give the same each time."""
    assert isinstance(node.target, torch._ops.OpOverload)
    return "it is random" if torch.Tag.nondeterministic_seeded in node.target.tags else None


def apply(module: GraphModule, node: Node) -> None:
    """Put the value in the operator's place."""
    assert callable(node.target)
    arguments, options = torch.fx.map_arg((node.args, node.kwargs), lambda input: constant(module, input))
    value = node.target(*arguments, **options)
    replace(node, add_constant(module, node.name, value, before=node))


REWRITE = Rewrite("fold_constants", "f(constants)  ->  constant", match, check, apply)
