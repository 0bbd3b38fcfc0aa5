"""Compute in (N, C, H, W) what a network computes in (N, H, W, C) between a permutation and its inverse.

    permute(f(permute(x)))  ->  f′(x)

in which, with the channels in dimension 1,

    linear(x)      ->  1x1 convolution of x
    layer_norm(x)  ->  c · rsqrt(mean(c·c) + ε) · γ + β,   c = x − mean(x),   means over dimension 1

and what takes each value by itself stays as it is. A network such as ConvNeXt goes to the channels last for its linear
layers and back in every block. A runtime whose own layout has the channels last anyway gains the two permutations, one
that has them first also has its convolutions where it had its matrix products; LayerNorm becomes arithmetic that every
runtime has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import (
    add_constant,
    argument,
    beside,
    constant,
    has_constant_weights,
    is_call,
    is_constant,
    permutation,
    replace,
    shape,
)
from edge.lowering.layer_norm import LAYER_NORM, match_layer_norm
from edge.lowering.layers import ADDITION, LINEAR
from edge.lowering.rewrite import Rewrite

CHANNELS_LAST, CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
ONE = slice(0, 1)
"""The channels of what has one value at each position."""

UNARY = (
    torch.ops.aten.gelu.default,
    torch.ops.aten.relu.default,
    torch.ops.aten.silu.default,
    torch.ops.aten.sigmoid.default,
    torch.ops.aten.tanh.default,
    torch.ops.aten.hardtanh.default,
    torch.ops.aten.hardswish.default,
    torch.ops.aten.hardsigmoid.default,
    torch.ops.aten.leaky_relu.default,
    torch.ops.aten.elu.default,
)
ADDITIONS = (ADDITION, torch.ops.aten.sub.Tensor)
"""They may scale their second operand."""
BINARY = (
    *ADDITIONS,
    torch.ops.aten.mul.Tensor,
    torch.ops.aten.div.Tensor,
)


@dataclass(frozen=True)
class Region:
    """Everything that is computed with the channels last around one permutation.

    Attributes:
        entries: the permutations to (N, H, W, C).
        inside: the operators between, in the graph's order.
        exits: the permutations back.
        unknown: a node that reads or makes its values and has no channels-first form, if there is one.
    """

    entries: tuple[Node, ...]
    inside: tuple[Node, ...]
    exits: tuple[Node, ...]
    unknown: Node | None


def _operands(node: Node) -> list[Node]:
    """The inputs of a node that are not weights."""
    return [used for used in node.all_input_nodes if not is_constant(used)]


def _is_known(node: Node) -> bool:
    """Whether a node computes in (N, H, W, C) what has a channels-first form."""
    if is_call(node, LINEAR):
        return has_constant_weights(node) and len(shape(node)) == 4
    if is_call(node, LAYER_NORM):
        return match_layer_norm(node) is not None and len(shape(node)) == 4
    if is_call(node, *BINARY):
        plain = node.target not in ADDITIONS or argument(node, "alpha") == 1
        return plain and all(len(shape(used)) == 4 for used in _operands(node))
    return is_call(node, *UNARY)


def match(module: GraphModule, node: Node) -> Region | None:
    """A permutation to the channels last, with everything that is computed there.

    Found by following every value to its users, and operators of two values also to the other one.
    """
    if permutation(node) != CHANNELS_LAST:
        return None
    entries, inside, exits = {node}, set[Node](), set[Node]()
    unknown = None
    waiting = [*node.users]
    while waiting:
        reached = waiting.pop()
        if reached in inside or reached in entries or reached in exits:
            continue
        order = permutation(reached)
        if order == CHANNELS_FIRST:
            exits.add(reached)
        elif order == CHANNELS_LAST:
            entries.add(reached)
            waiting += reached.users
        elif _is_known(reached):
            inside.add(reached)
            waiting += [*reached.users, *_operands(reached)]
        else:
            unknown = unknown or reached
    ordered = tuple(other for other in module.graph.nodes if other in inside)
    return Region(tuple(entries), ordered, tuple(exits), unknown)


def check(module: GraphModule, region: Region) -> str | None:
    """Every way in and out must be a permutation, between the two layouts only."""
    if region.unknown is not None:
        what = "the program's output" if region.unknown.op == "output" else region.unknown.name
        return f"{what} has no form with the channels first"
    astray = [n for n in (*region.entries, *region.exits) if _operands(n)[0] in (*region.entries, *region.inside)]
    if any(node in region.entries for node in astray) or not region.exits:
        return "it is permuted to another layout"
    return None


def apply(module: GraphModule, region: Region) -> None:
    """Compute every value of the region from the entries' inputs, and give the exits' users those."""
    form = {entry: _operands(entry)[0] for entry in region.entries}
    for node in region.inside:
        form[node] = _ChannelsFirst(module, node).of(form)
    for exit in region.exits:
        replace(exit, form[_operands(exit)[0]])


class _ChannelsFirst:
    """Writes the channels-first form of one operator, in front of it."""

    def __init__(self, module: GraphModule, node: Node) -> None:
        self.module, self.node = module, node
        self.value = node.meta["val"].permute(CHANNELS_FIRST)
        """The result's shape and type."""

    def of(self, form: Mapping[Node, Node]) -> Node:
        """The operator's form.

        Args:
            form: of the values that it reads.
        """
        if is_call(self.node, LINEAR):
            return self._convolution(form[argument(self.node, "input")])
        if is_call(self.node, LAYER_NORM):
            return self._layer_norm(form[argument(self.node, "input")])
        args = [self._operand(value, form) for value in self.node.args]
        options: dict[str, Any] = dict(self.node.kwargs)
        return self._call(self.node.target, *args, **options)

    def _call(self, target: Any, *args: Any, channels: slice = slice(None), **options: Any) -> Node:
        with self.module.graph.inserting_before(self.node):
            made = self.module.graph.call_function(target, args, options)
        made.meta["val"] = self.value[:, channels]
        made.meta |= {key: self.node.meta[key] for key in ("nn_module_stack",) if key in self.node.meta}
        return made

    def _constant(self, source: Node, name: str, value: Tensor) -> Node:
        return add_constant(self.module, beside(source, name), value, before=self.node)

    def _operand(self, value: Any, form: Mapping[Node, Node]) -> Any:
        if not isinstance(value, Node):
            return value
        if value in form:
            return form[value]
        plain = constant(self.module, value)
        aligned = plain.reshape(*[1] * (4 - plain.ndim), *plain.shape).permute(CHANNELS_FIRST)
        return self._constant(value, "per_channel", aligned)

    def _convolution(self, x: Node) -> Node:
        weight = argument(self.node, "weight")
        pointwise = self._constant(weight, "pointwise", constant(self.module, weight)[:, :, None, None])
        return self._call(torch.ops.aten.conv2d.default, x, pointwise, argument(self.node, "bias"))

    def _layer_norm(self, x: Node) -> Node:
        norm = match_layer_norm(self.node)
        assert norm is not None
        mean = self._mean(x)
        centred = self._call(torch.ops.aten.sub.Tensor, x, mean)
        variance = self._mean(self._call(torch.ops.aten.mul.Tensor, centred, centred))
        stable = self._call(torch.ops.aten.add.Tensor, variance, norm.epsilon, channels=ONE)
        inverse = self._call(torch.ops.aten.rsqrt.default, stable, channels=ONE)
        y = self._call(torch.ops.aten.mul.Tensor, centred, inverse)
        for name, combine in (("weight", torch.ops.aten.mul.Tensor), ("bias", torch.ops.aten.add.Tensor)):
            if (parameter := argument(self.node, name)) is not None:
                y = self._call(combine, y, self._operand(parameter, {}))
        return y

    def _mean(self, x: Node) -> Node:
        return self._call(torch.ops.aten.mean.dim, x, [1], True, channels=ONE)


REWRITE = Rewrite("channels_first", "permute(f(permute(x)))  ->  f′(x)", match, check, apply)
