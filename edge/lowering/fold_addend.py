"""Move a constant that is added before a convolution behind it, and let the convolution's bias become part of it.

    W∗(x + c) + b  ->  W∗x + (W∗c + b)

So the biases of attention go through the first talking head, a 1x1 convolution over the heads. Exact for any padding,
since zero is the padding of both summands. Where the new constant is the same at all positions it is the bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import (
    CONVOLUTIONS,
    add_constant,
    argument,
    constant,
    has_constant_weights,
    is_call,
    is_constant,
    shape,
)
from edge.lowering.layers import ADDITION, bias_or_zeros, set_layer, summands
from edge.lowering.rewrite import Rewrite


@dataclass(frozen=True)
class Addend:
    """A constant added to what a convolution reads.

    Attributes:
        sum: the addition.
        value: x.
        constant: c, a node.
        conv: the convolution.
    """

    sum: Node
    value: Node
    constant: Node
    conv: Node


def match(module: GraphModule, node: Node) -> Addend | None:
    """A convolution whose input is a sum with a constant."""
    if not is_call(node, *CONVOLUTIONS):
        return None
    sum = argument(node, "input")
    sides = summands(sum) if isinstance(sum, Node) else None
    if sides is None:
        return None
    value, addend = sides if is_constant(sides[1]) else sides[::-1]
    if not isinstance(value, Node) or not is_constant(addend) or shape(value) != shape(sum):
        return None
    assert isinstance(addend, Node)
    return Addend(sum, value, addend, node)


def _convolved(module: GraphModule, addend: Addend) -> Tensor:
    """W∗c + b, in the shape of the convolution's output."""
    conv = addend.conv
    expanded = constant(module, addend.constant).expand(shape(addend.value))
    rest = [argument(conv, name) for name in ("stride", "padding", "dilation", "groups")]
    weight = constant(module, argument(conv, "weight"))
    assert isinstance(conv.target, torch._ops.OpOverload)
    return conv.target(expanded, weight, bias_or_zeros(module, conv), *rest)


def _per_channel(values: Tensor) -> bool:
    return bool((values == values[:, :, *[slice(0, 1)] * (values.ndim - 2)]).all())


def check(module: GraphModule, addend: Addend) -> str | None:
    """Only the convolution may read the sum, and the constant may not grow."""
    if len(addend.sum.users) > 1:
        return f"{addend.sum.name} has other users"
    if not has_constant_weights(addend.conv):
        return f"{addend.conv.name} computes its weights"
    convolved = _convolved(module, addend)
    if not _per_channel(convolved) and convolved.numel() > constant(module, addend.constant).numel():
        return f"the constant would grow: behind {addend.conv.name} it differs from position to position"
    return None


def apply(module: GraphModule, addend: Addend) -> None:
    """Convolve the constant, and add it behind the convolution."""
    conv, convolved = addend.conv, _convolved(module, addend)
    weight = constant(module, argument(conv, "weight"))
    if _per_channel(convolved):
        set_layer(module, conv, addend.value, weight, convolved[0].flatten(1)[:, 0])
        return
    rest = tuple(argument(conv, name) for name in ("stride", "padding", "dilation", "groups"))
    conv.args, conv.kwargs = (addend.value, argument(conv, "weight"), None, *rest), {}
    after = conv.next
    folded = add_constant(module, f"{addend.constant.target}_folded", convolved, before=after)
    with module.graph.inserting_before(after):
        sum = module.graph.call_function(ADDITION, (conv, folded))
    sum.meta["val"] = conv.meta["val"]
    conv.replace_all_uses_with(sum, delete_user_cb=lambda user: user is not sum)


REWRITE = Rewrite("fold_addend", "W∗(x + c) + b  ->  W∗x + (W∗c + b)", match, check, apply)
