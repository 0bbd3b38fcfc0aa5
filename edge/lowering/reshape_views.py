"""Turn views into reshapes, and several in a row into one.

    view(x)  ->  reshape(x)
    reshape(reshape(x))  ->  reshape(x)

A view holds only for values that lie in memory in one certain order, and a copy before it puts them there. A rewrite
may take the copy away or change the order; a reshape asks for neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edge.lowering.graph import argument, is_call, replace, shape
from edge.lowering.rewrite import Rewrite

RESHAPE = torch.ops.aten.reshape.default
VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


@dataclass(frozen=True)
class View:
    """A value in another shape.

    Attributes:
        source: what it was before the first of a row of reshapes.
    """

    node: Node
    source: Node


def match(module: GraphModule, node: Node) -> View | None:
    """A view, or a reshape of a reshape."""
    if not is_call(node, *VIEWS, RESHAPE):
        return None
    source = argument(node, "self")
    chained = is_call(source, RESHAPE)
    if node.target is RESHAPE and not chained:
        return None
    return View(node, argument(source, "self") if chained else source)


def check(module: GraphModule, view: View) -> str | None:
    """Always possible."""
    return None


def apply(module: GraphModule, view: View) -> None:
    """Reshape the source to the view's shape, spelled out."""
    with module.graph.inserting_before(view.node):
        reshaped = module.graph.call_function(RESHAPE, (view.source, list(shape(view.node))))
    replace(view.node, reshaped)


REWRITE = Rewrite("reshape_views", "view(x)  ->  reshape(x)", match, check, apply)
