"""Add the weights of layers that read the same input and whose results are added.

    A∗x + B∗x  ->  (A + B)∗x

A, B may each carry a factor (two heads are averaged, a/2 + b/2) and may be convolutions of different kernels, as long
as one's taps are among the other's: the smaller kernel is put where its taps fall in the larger. An average pooling
with a kernel of 1 is a convolution with one tap of 1 on every channel by itself, so that beside a depthwise convolution
of the same stride it becomes 1 on the centre tap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edge.lowering.graph import argument, constant, has_constant_weights, is_call, replace, shape
from edge.lowering.layers import LAYERS, LINEAR, bias_or_zeros, constant_factor, set_layer, summands
from edge.lowering.rewrite import Rewrite

AVERAGE_POOLING = torch.ops.aten.avg_pool2d.default

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Where a two-dimensional layer's kernel falls; heights and widths."""

    kernel: Pair
    padding: Pair
    stride: Pair
    dilation: Pair


@dataclass(frozen=True)
class Branch:
    """One side of the addition.

    Attributes:
        node: its result, with the factor.
        layer: a convolution, a linear layer or a pooling.
        factor: one number, as a tensor without axes.
    """

    node: Node
    layer: Node
    factor: Tensor

    @property
    def input(self) -> Node:
        """What the layer reads."""
        return argument(self.layer, "self" if self.layer.target is AVERAGE_POOLING else "input")


@dataclass(frozen=True)
class Parallel:
    """Two layers of one input.

    Attributes:
        larger: keeps its place; a convolution or linear layer.
        smaller: goes into it.
    """

    sum: Node
    larger: Branch
    smaller: Branch


def _pair(node: Node, name: str) -> Pair:
    first, *rest = argument(node, name)
    return first, rest[0] if rest else first


def _samples(node: Node) -> bool:
    """Whether a node is a pooling over windows of one value."""
    return (
        is_call(node, AVERAGE_POOLING)
        and _pair(node, "kernel_size") == (1, 1)
        and not any(argument(node, "padding"))
        and argument(node, "divisor_override") in (None, 1)
    )


def _window(layer: Node) -> Window | None:
    """None for a layer that has no such window, or names its padding by a word."""
    if layer.target is AVERAGE_POOLING:  # without a stride it takes its kernel's
        return Window((1, 1), (0, 0), _pair(layer, "stride") if argument(layer, "stride") else (1, 1), (1, 1))
    if layer.target is not torch.ops.aten.conv2d.default:
        return None
    height, width = shape(argument(layer, "weight"))[2:]
    return Window((height, width), _pair(layer, "padding"), _pair(layer, "stride"), _pair(layer, "dilation"))


def _first_tap(larger: Window, smaller: Window) -> Pair:
    """The tap of the larger kernel on which the smaller's first falls."""
    return larger.padding[0] - smaller.padding[0], larger.padding[1] - smaller.padding[1]


def _branch(module: GraphModule, node: object) -> Branch | None:
    if not isinstance(node, Node):
        return None
    scaled = constant_factor(module, node)
    layer, factor = scaled if scaled else (node, torch.ones((), dtype=torch.float64))
    if factor.numel() != 1 or not (is_call(layer, *LAYERS) or _samples(layer)):
        return None
    return Branch(node, layer, factor.reshape(()))


def match(module: GraphModule, node: Node) -> Parallel | None:
    """A sum of two layers of the same input, one of them no pooling."""
    sides = summands(node)
    if sides is None:
        return None
    first, second = (_branch(module, side) for side in sides)
    if not first or not second or first.layer is second.layer or first.input is not second.input:
        return None
    with_weights = [branch for branch in (first, second) if branch.layer.target in LAYERS]
    if not with_weights or shape(first.node) != shape(second.node):
        return None
    larger = max(with_weights, key=lambda branch: shape(argument(branch.layer, "weight"))[1:].numel())
    return Parallel(node, larger, second if larger is first else first)


def check(module: GraphModule, found: Parallel) -> str | None:
    """Nothing else may read either result, and the taps of one must be among the other's."""
    larger, smaller = found.larger.layer, found.smaller.layer
    for branch in (found.larger, found.smaller):
        if len(branch.node.users) > 1 or len(branch.layer.users) > 1:
            return f"{branch.layer.name} has other users"
        if branch.layer.target in LAYERS and not has_constant_weights(branch.layer):
            return f"{branch.layer.name} computes its weights"
    if larger.target is LINEAR and smaller.target is LINEAR:
        return None
    wide, narrow = _window(larger), _window(smaller)
    if not wide or not narrow:
        return f"{larger.name} and {smaller.name} are of different kinds"
    if (wide.stride, wide.dilation) != (narrow.stride, narrow.dilation):
        return f"{larger.name} and {smaller.name} differ in stride or dilation"
    if wide.dilation != (1, 1):
        return f"{larger.name} is dilated"
    taps = zip(_first_tap(wide, narrow), narrow.kernel, wide.kernel, strict=True)
    if any(first < 0 or first + count > room for first, count, room in taps):
        return f"{smaller.name} reads what {larger.name} does not"
    if smaller.target in LAYERS and argument(smaller, "groups") != argument(larger, "groups"):
        return f"{larger.name} and {smaller.name} have different groups"
    return None


def _sampling_weight(larger: Node, weight: Tensor) -> Tensor:
    """What passes every channel on, as a kernel (O, I / groups, 1, 1) in the larger convolution's groups."""
    outputs, inputs = weight.shape[:2]
    in_group = torch.arange(outputs) % (outputs // argument(larger, "groups"))
    return torch.eye(inputs, dtype=weight.dtype)[in_group].reshape(outputs, inputs, 1, 1)


def apply(module: GraphModule, found: Parallel) -> None:
    """Add the smaller's weights to the larger's."""
    larger, smaller = found.larger.layer, found.smaller.layer
    weight = constant(module, argument(larger, "weight")) * found.larger.factor
    bias = bias_or_zeros(module, larger) * found.larger.factor
    if smaller.target in LAYERS:
        added = constant(module, argument(smaller, "weight"))
        bias = bias + bias_or_zeros(module, smaller) * found.smaller.factor
    else:
        added = _sampling_weight(larger, weight)
    wide, narrow = _window(larger), _window(smaller)
    if wide and narrow:
        top, left = _first_tap(wide, narrow)
        height, width = narrow.kernel
        weight[:, :, top : top + height, left : left + width] += added * found.smaller.factor
    else:
        weight = weight + added * found.smaller.factor
    set_layer(module, larger, found.larger.input, weight, bias)
    replace(found.sum, larger)


REWRITE = Rewrite("merge_parallel_layers", "A∗x + B∗x  ->  (A + B)∗x", match, check, apply)
