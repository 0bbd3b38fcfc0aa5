"""Take the mean over the positions of an image as one over height and width.

    mean over the last axis of reshape(x, (N, C, H·W))  ->  mean over the last two of x

XNNPACK pools over height and width; a mean over flattened positions it does not take.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edge.lowering.graph import argument, is_call, replace, shape
from edge.lowering.rewrite import Rewrite

MEAN, RESHAPE = torch.ops.aten.mean.dim, torch.ops.aten.reshape.default


@dataclass(frozen=True)
class FlattenedMean:
    """A mean over flattened positions.

    Attributes:
        image: what was flattened, (N, C, H, W).
    """

    mean: Node
    image: Node


def match(module: GraphModule, node: Node) -> FlattenedMean | None:
    """The mean, without keeping its axis, of an image whose positions alone were flattened."""
    if not is_call(node, MEAN) or not is_call(flat := argument(node, "self"), RESHAPE) or argument(node, "keepdim"):
        return None
    image = argument(flat, "self")
    flattened = len(shape(image)) == 4 and shape(flat) == (*shape(image)[:2], shape(image)[2:].numel())
    return FlattenedMean(node, image) if flattened and argument(node, "dim") in ([2], [-1]) else None


def check(module: GraphModule, found: FlattenedMean) -> str | None:
    """It must not change the type on the way."""
    return "it converts the type too" if argument(found.mean, "dtype") is not None else None


def apply(module: GraphModule, found: FlattenedMean) -> None:
    """Read the image itself."""
    with module.graph.inserting_before(found.mean):
        mean = module.graph.call_function(MEAN, (found.image, [2, 3]))
    replace(found.mean, mean)


REWRITE = Rewrite(
    "mean_over_positions", "mean of reshape(x, (N, C, H·W))  ->  mean of x over H and W", match, check, apply
)
