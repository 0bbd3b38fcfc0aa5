"""How much of a program XNNPACK runs, and what it left to the portable kernels."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

from executorch.exir.delegate import executorch_call_delegate
from executorch.exir.lowered_backend_module import LoweredBackendModule
from torch.fx import Graph, GraphModule

TRANSPOSES = ("permute_copy.default", "transpose_copy.int")


def _operators(graph: Graph) -> Counter[str]:
    """The operators that compute something, by name: no delegate call, no tuple access, no change of numbers."""
    targets = (node.target for node in graph.nodes if node.op == "call_function")
    names = (target.__name__ for target in targets if target not in (executorch_call_delegate, operator.getitem))
    return Counter(name.removeprefix("aten.") for name in names if not name.startswith("quantized_decomposed."))


def delegation_notes(module: GraphModule) -> dict[str, Any]:
    """Count delegates and operators of a partitioned edge program.

    Returns:
        ``delegates``, ``delegated_operators`` of ``operators``, ``delegated_share``, ``not_delegated`` (name: count),
        ``transposes``.
    """
    calls = [node for node in module.graph.nodes if node.target is executorch_call_delegate]
    delegates = [getattr(module, node.args[0].name) for node in calls]
    inside: Counter[str] = Counter()
    for delegate in delegates:
        assert isinstance(delegate, LoweredBackendModule)
        inside += _operators(delegate.original_module.graph)
    outside = _operators(module.graph)
    total = inside.total() + outside.total()
    return {
        "delegates": len(delegates),
        "operators": total,
        "delegated_operators": inside.total(),
        "delegated_share": round(inside.total() / total, 4) if total else 0.0,
        "not_delegated": dict(sorted(outside.items())),
        "transposes": sum((inside + outside)[name] for name in TRANSPOSES),
    }
