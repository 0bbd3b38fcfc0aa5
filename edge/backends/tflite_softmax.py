"""Softmax as one TFLite operator.

litert-torch 0.10 takes a softmax apart into five operators. In int8 the exponentials' sum then has a range of its own,
reaches its zero point, and the division by it fails. Marked as a composite the converter knows, it stays whole.
"""

from __future__ import annotations

import torch
from litert_torch.hlfb import StableHLOCompositeBuilder
from torch import Tensor
from torch.fx import GraphModule

SOFTMAX = torch.ops.aten.softmax.int


def _over_last_axis(x: Tensor) -> Tensor:
    composite = StableHLOCompositeBuilder(name="odml.softmax", attr={"axis": -1})
    return composite.mark_outputs(composite.mark_inputs(x).softmax(-1))


def keep_whole(module: GraphModule) -> GraphModule:
    """Mark every softmax over the last axis, in place; TFLite's operator knows no other axis."""
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target is not SOFTMAX:
            continue
        value, axis, *dtype = node.args
        if axis in (-1, node.meta["val"].ndim - 1) and not dtype and not node.kwargs:
            node.target, node.args = _over_last_axis, (value,)
    module.recompile()
    return module
