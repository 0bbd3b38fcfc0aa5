"""Mix the heads of attention by a matrix product.

    W∗x + b of scores (1, C, M, N)  ->  W·reshape(x, (C, M·N)) + b,  reshaped back

A talking head is a 1x1 convolution over the heads of scores that products of matrices make. Convolutions want channels
last, products do not care, and a softmax in between wants the keys last: as a product nothing has to be transposed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edge.lowering.graph import add_constant, argument, constant, has_constant_weights, is_call, replace, shape
from edge.lowering.layers import ADDITION, summands
from edge.lowering.rewrite import Rewrite

CONVOLUTION, MATMUL = torch.ops.aten.conv2d.default, torch.ops.aten.matmul.default
RESHAPE, SOFTMAX = torch.ops.aten.reshape.default, torch.ops.aten.softmax.int


@dataclass(frozen=True)
class Mixing:
    """A 1x1 convolution of scores."""

    conv: Node


def _are_scores(value: object) -> bool:
    """Whether a value is a product of matrices or a softmax, seen through reshapes and sums with constants."""
    while True:
        if is_call(value, MATMUL, torch.ops.aten.bmm.default, SOFTMAX):
            return True
        if is_call(value, ADDITION):
            assert isinstance(value, Node)
            sides = summands(value)
            operands = [side for side in sides or () if isinstance(side, Node) and side.op != "get_attr"]
            if len(operands) != 1:
                return False
            value = operands[0]
        elif is_call(value, RESHAPE):
            assert isinstance(value, Node)
            value = argument(value, "self")
        else:
            return False


def match(module: GraphModule, node: Node) -> Mixing | None:
    """A 1x1 convolution, of one image, that reads scores at every position and pads nothing."""
    if not is_call(node, CONVOLUTION) or not _are_scores(argument(node, "input")):
        return None
    plain = shape(argument(node, "weight"))[2:] == (1, 1) and argument(node, "groups") == 1 and shape(node)[0] == 1
    everywhere = shape(node)[2:] == shape(argument(node, "input"))[2:] and not any(argument(node, "padding"))
    return Mixing(node) if plain and everywhere else None


def check(module: GraphModule, mixing: Mixing) -> str | None:
    """Its weights must be constants."""
    return None if has_constant_weights(mixing.conv) else f"{mixing.conv.name} computes its weights"


def apply(module: GraphModule, mixing: Mixing) -> None:
    """Reshape, multiply, add the bias, reshape back."""
    conv = mixing.conv
    values = argument(conv, "input").meta["val"].flatten(2)
    weight = constant(module, argument(conv, "weight")).flatten(2).squeeze(2)[None]
    name = str(argument(conv, "weight").target)
    weight_node = add_constant(module, f"{name}_of_product", weight, before=conv)
    bias = argument(conv, "bias")
    with module.graph.inserting_before(conv):
        matrix = module.graph.call_function(RESHAPE, (argument(conv, "input"), list(values.shape)))
        mixed = module.graph.call_function(MATMUL, (weight_node, matrix))
    matrix.meta["val"], mixed.meta["val"] = values, conv.meta["val"].flatten(2)
    if bias is not None:
        column = add_constant(module, f"{name}_bias_of_product", constant(module, bias)[None, :, None], before=conv)
        with module.graph.inserting_before(conv):
            biased = module.graph.call_function(ADDITION, (mixed, column))
        biased.meta["val"] = mixed.meta["val"]
        mixed = biased
    with module.graph.inserting_before(conv):
        restored = module.graph.call_function(RESHAPE, (mixed, list(shape(conv))))
    replace(conv, restored)


REWRITE = Rewrite(
    "mixing_as_product", "W∗x + b of scores (1, C, M, N)  ->  W·reshape(x, (C, M·N)) + b", match, check, apply
)
