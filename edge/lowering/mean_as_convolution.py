"""Take the mean over the channels with a 1x1 convolution.

    mean over c of x[n, c, h, w]  ->  1x1 convolution of x with the weights 1 / C

XNNPACK's partitioner takes means over height and width only; left out, a mean over the channels cuts the network in
two at every LayerNorm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edge.lowering.graph import add_constant, argument, is_call, replace, shape
from edge.lowering.rewrite import Rewrite


@dataclass(frozen=True)
class ChannelMean:
    """A mean over the channels of an image, which stay as one."""

    node: Node
    input: Node


def match(module: GraphModule, node: Node) -> ChannelMean | None:
    """The mean of a value (N, C, H, W) over C alone, which keeps its dimensions."""
    if not is_call(node, torch.ops.aten.mean.dim) or not argument(node, "keepdim"):
        return None
    source, dims = argument(node, "self"), argument(node, "dim")
    return ChannelMean(node, source) if len(shape(source)) == 4 and [dim % 4 for dim in dims] == [1] else None


def check(module: GraphModule, mean: ChannelMean) -> str | None:
    """The type must stay."""
    return None if argument(mean.node, "dtype") is None else "it also converts the type"


def apply(module: GraphModule, mean: ChannelMean) -> None:
    """Insert the convolution."""
    channels = shape(mean.input)[1]
    weights = torch.full((1, channels, 1, 1), 1 / channels, dtype=torch.float64)
    weight = add_constant(module, "mean_weights", weights, before=mean.node)
    with module.graph.inserting_before(mean.node):
        convolution = module.graph.call_function(torch.ops.aten.conv2d.default, (mean.input, weight))
    replace(mean.node, convolution)


REWRITE = Rewrite("mean_as_convolution", "mean of x over c  ->  (1 / C)∗x, a 1x1 convolution", match, check, apply)
