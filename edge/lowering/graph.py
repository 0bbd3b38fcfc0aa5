"""Small questions about nodes, and constants in and out of a graph module."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

CONVOLUTIONS = tuple(
    overload
    for convolution in (torch.ops.aten.conv1d, torch.ops.aten.conv2d, torch.ops.aten.conv3d)
    for overload in (convolution.default, convolution.padding)
)
BATCH_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default
PERMUTE, TRANSPOSE = torch.ops.aten.permute.default, torch.ops.aten.transpose.int


def argument(node: Node, name: str) -> Any:
    """The value of a call's argument by its name in the operator's schema, defaults included."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for position, parameter in enumerate(node.target._schema.arguments):
        if parameter.name == name:
            if position < len(node.args):
                return node.args[position]
            return node.kwargs.get(name, parameter.default_value)
    raise KeyError(f"{node.target} has no argument {name!r}")


def is_call(value: object, *targets: object) -> bool:
    """Whether a value is a call of one of these operators."""
    return isinstance(value, Node) and value.op == "call_function" and value.target in targets


def is_item(value: object, index: int) -> bool:
    """Whether a value is item ``index`` of a tuple-valued node."""
    return isinstance(value, Node) and is_call(value, operator.getitem) and bool(value.args[1] == index)


def is_constant(value: object) -> bool:
    """Whether a value is a weight or another constant of the module."""
    return isinstance(value, Node) and value.op == "get_attr"


def shape(node: Node) -> torch.Size:
    """The node's output shape, from export."""
    return node.meta["val"].shape


def permutation(node: Node) -> tuple[int, ...] | None:
    """For each axis of a permutation's output the axis of its input; None if the node permutes nothing."""
    if not is_call(node, PERMUTE, TRANSPOSE):
        return None
    order = list(range(len(shape(node))))
    if node.target is PERMUTE:
        return tuple(order[dim] for dim in argument(node, "dims"))
    first, second = argument(node, "dim0"), argument(node, "dim1")
    order[first], order[second] = order[second], order[first]
    return tuple(order)


def place(node: Node) -> str:
    """Where in the user's network a node comes from: the innermost module's path, or the node's own name."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return paths[-1] if paths else node.name


def constant(module: GraphModule, node: Node) -> Tensor:
    """The tensor behind a ``get_attr`` node."""
    return operator.attrgetter(str(node.target))(module).detach()


def beside(node: Node, leaf: str) -> str:
    """A name for another constant in the module that owns this one."""
    return ".".join([*str(node.target).split(".")[:-1], leaf])


def add_constant(module: GraphModule, name: str, value: Tensor, before: Node) -> Node:
    """A new constant under a free name like ``name``, as a node placed before ``before``."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path) if path else module
    free = next(f"{leaf}{n or ''}" for n in range(1_000_000) if not hasattr(owner, f"{leaf}{n or ''}"))
    # A view with sides of 1 counts as contiguous whatever its strides; ExecuTorch takes them for the order in memory.
    plain = value.clone(memory_format=torch.contiguous_format)
    owner.register_parameter(free, nn.Parameter(plain, requires_grad=False))
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(f"{path}.{free}" if path else free)
    node.meta["val"] = plain
    return node


def has_constant_weights(conv: Node) -> bool:
    """Whether a convolution's weight and bias are constants of the module."""
    return all(w is None or is_constant(w) for w in (argument(conv, "weight"), argument(conv, "bias")))


def set_convolution(module: GraphModule, conv: Node, input: Node, weight: Tensor, bias: Tensor) -> None:
    """Let a convolution read another input with another weight (O, C / groups, …) and bias (O,)."""
    rest = tuple(argument(conv, name) for name in ("stride", "padding", "dilation", "groups"))
    conv.args, conv.kwargs = (input, *add_weights(module, conv, weight, bias), *rest), {}


def add_weights(module: GraphModule, layer: Node, weight: Tensor, bias: Tensor) -> tuple[Node, Node]:
    """Another weight and bias for a layer, as constants placed before it, beside the weight that it has."""
    old = argument(layer, "weight")
    return (
        add_constant(module, beside(old, "folded_weight"), weight, before=layer),
        add_constant(module, beside(old, "folded_bias"), bias, before=layer),
    )


def replace(old: Node, new: Node) -> None:
    """Let every user of ``old`` use ``new``, which takes over its shape."""
    new.meta.setdefault("val", old.meta.get("val"))
    old.replace_all_uses_with(new)
