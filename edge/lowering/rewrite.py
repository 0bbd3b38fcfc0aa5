"""What a rewrite is, and how one is applied to a whole graph.

A rewrite is three functions and its algebra: ``match`` recognises its pattern at a node, ``check`` says why a match
may not be rewritten, ``apply`` rewrites it. The graph is functional ATen
(``ExportedProgram.run_decompositions({})``), unlifted: weights are ``get_attr`` nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule, Node

from edge.lowering.graph import place


@dataclass(frozen=True)
class Refusal:
    """A match that was left as it is.

    Attributes:
        node: the module of the user's network it belongs to.
    """

    node: str
    reason: str


@dataclass(frozen=True)
class Rewrite:
    """An exact transformation of the graph.

    Attributes:
        name: as printed and as the file is called.
        algebra: before -> after, in one line.
        match: the pattern's record when it ends at this node, else None.
        check: why this match may not be rewritten, else None.
        apply: rewrites one match in place.
    """

    name: str
    algebra: str
    match: Callable[[GraphModule, Node], Any | None]
    check: Callable[[GraphModule, Any], str | None]
    apply: Callable[[GraphModule, Any], None]


def apply_everywhere(rewrite: Rewrite, module: GraphModule) -> tuple[int, tuple[Refusal, ...]]:
    """Apply a rewrite to every match, first to last, and drop what nothing uses any more.

    Returns:
        The number of matches rewritten, and the refusals.
    """
    rewritten, refused = 0, []
    for node in list(module.graph.nodes):
        if node._erased or (found := rewrite.match(module, node)) is None:
            continue
        if reason := rewrite.check(module, found):
            refused.append(Refusal(place(node), reason))
            continue
        rewrite.apply(module, found)
        rewritten += 1
        module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    module.delete_all_unused_submodules()
    return rewritten, tuple(refused)
