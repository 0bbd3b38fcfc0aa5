"""Turn a BatchNorm that could not be folded into one multiplication and one addition.

    BatchNorm(x)  ->  s·x + t

Every backend runs these two; several leave a BatchNorm to a slow generic kernel or take it apart in their own way.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from edge.lowering.batch_norm import BatchNorm, match_batch_norm, scale_and_shift
from edge.lowering.graph import add_constant, argument, beside, replace, shape
from edge.lowering.rewrite import Rewrite


def match(module: GraphModule, node: Node) -> BatchNorm | None:
    """Any BatchNorm that still stands."""
    return match_batch_norm(node)


def check(module: GraphModule, norm: BatchNorm) -> str | None:
    """Always possible."""
    return None


def apply(module: GraphModule, norm: BatchNorm) -> None:
    """Insert the two operations where the norm stood."""
    per_channel = (1, -1, *[1] * (len(shape(norm.output)) - 2))
    scale, shift = (values.reshape(per_channel) for values in scale_and_shift(module, norm))
    mean = argument(norm.call, "running_mean")
    scale_node = add_constant(module, beside(mean, "scale"), scale, before=norm.output)
    shift_node = add_constant(module, beside(mean, "shift"), shift, before=norm.output)
    with module.graph.inserting_before(norm.output):
        scaled = module.graph.call_function(torch.ops.aten.mul.Tensor, (norm.input, scale_node))
        shifted = module.graph.call_function(torch.ops.aten.add.Tensor, (scaled, shift_node))
    scaled.meta["val"] = norm.output.meta["val"]
    replace(norm.output, shifted)


REWRITE = Rewrite("unfold_batch_norm", "BatchNorm(x)  ->  s·x + t", match, check, apply)
