"""Drop what only training or tracing needed: dropout, copies, detached aliases, assertions, slices that take
everything.

    f(x) = x  ->  x

Export makes the graph functional, so a copy protects nothing any more.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edge.lowering.graph import argument, is_call, replace, shape
from edge.lowering.rewrite import Rewrite

IDENTITIES = (
    torch.ops.aten.clone.default,
    torch.ops.aten.alias.default,
    torch.ops.aten.detach.default,
    torch.ops.aten.lift_fresh_copy.default,
    torch.ops.aten.contiguous.default,
)


@dataclass(frozen=True)
class Leftover:
    """A node whose value is its input."""

    node: Node
    input: Node


def _takes_everything(node: Node) -> bool:
    size = shape(argument(node, "self"))[argument(node, "dim")]
    start, end, step = (argument(node, name) for name in ("start", "end", "step"))
    return start in (None, 0) and (end is None or end in (size, sys.maxsize)) and step == 1


def match(module: GraphModule, node: Node) -> Leftover | None:
    """An operator that hands its input on unchanged."""
    if is_call(node, *IDENTITIES):
        return Leftover(node, argument(node, "self"))
    if is_call(node, torch.ops.aten.dropout.default) and not argument(node, "train"):
        return Leftover(node, argument(node, "input"))
    if is_call(node, torch.ops.aten.slice.Tensor) and _takes_everything(node):
        return Leftover(node, argument(node, "self"))
    if is_call(node, torch.ops.aten.copy.default) and shape(argument(node, "src")) == shape(node):
        return Leftover(node, argument(node, "src"))
    return None


def check(module: GraphModule, leftover: Leftover) -> str | None:
    """The type must stay, and an output must not become an input."""
    if leftover.node.meta["val"].dtype != leftover.input.meta["val"].dtype:
        return "it also converts the type"
    if leftover.input.op == "placeholder" and any(user.op == "output" for user in leftover.node.users):
        return "the program would return its own input"
    return None


def apply(module: GraphModule, leftover: Leftover) -> None:
    """Let the users read the input."""
    replace(leftover.node, leftover.input)


REWRITE = Rewrite("drop_training_leftovers", "f(x) = x  ->  x", match, check, apply)
