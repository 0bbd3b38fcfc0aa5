"""PT2E's quantisation of a program with any of its layers in float, at the price of one float inference a sample.

PT2E itself would have to annotate, calibrate and convert the program anew for each choice of layers. What it would make
is known beforehand: an observer stands where values are quantised, and a value is quantised if the layer that makes it
or the layer that reads it is in int8. The observers' ranges do not depend on the choice, but for concatenations: one
that stays in float no longer makes its inputs share a range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree
from torchao.quantization.pt2e.observer import ObserverBase
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY, SharedQuantizationSpec

from edge.parity.metrics import sqnr_db
from edge.quantisation.search import Layer

aten = torch.ops.aten

_MOVES = frozenset(
    {
        aten.dropout.default,
        aten.flatten.using_ints,
        aten.permute.default,
        aten.reshape.default,
        aten.slice.Tensor,
        aten.squeeze.dim,
        aten.transpose.int,
        aten.view.default,
    }
)
"""Operators that the quantizer marks for int8 and that compute nothing: they are in whatever their input is in."""


Exact = dict[int, list[np.ndarray]]
"""The program's outputs with every layer in float, by the sample's number: the same whatever was observed."""


class PreparedSimulation:
    """The simulation of a prepared program: the graph with observers, calibrated, before it is converted."""

    def __init__(
        self, observed: GraphModule, samples: Sequence[tuple[Tensor, ...]], exact: Exact, blurred: int = 0
    ) -> None:
        """Read the observers' ranges.

        Args:
            observed: by ``prepare_pt2e``, calibrated; not changed.
            samples: calibration samples, each a tuple of the program's inputs.
            exact: receives what is missing in it; simulations of one program and the same samples share it.
            blurred: how many of the last samples are out of focus.
        """
        self._inputs = samples
        self._network = _Network(observed)
        self._exact = exact
        self.layers = tuple(_layer(node) for node in observed.graph.nodes if _is_layer(node))
        self.samples, self.blurred = len(samples), blurred
        self._everything = frozenset(layer.name for layer in self.layers)

    def sqnr_db(self, kept: frozenset[str], samples: Sequence[int]) -> Iterator[float]:
        """Of each of these samples against the program with every layer in float, in dB."""
        return (self._sample_db(kept, index) for index in samples)

    def _sample_db(self, kept: frozenset[str], index: int) -> float:
        sample = self._inputs[index]
        if index not in self._exact:
            self._exact[index] = self._network.outputs(sample, self._everything)
        pairs = zip(self._exact[index], self._network.outputs(sample, kept), strict=True)
        return min((min(sqnr_db(exact, got)) for exact, got in pairs), default=math.inf)


def _is_layer(node: Node) -> bool:
    return _annotation(node) is not None and not _is_fused(node) and node.target not in _MOVES


def _annotation(node: Any) -> Any:
    """The quantizer's, of a node that computes."""
    return node.meta.get(Q_ANNOTATION_KEY) if isinstance(node, Node) and node.op == "call_function" else None


def _is_fused(node: Node) -> bool:
    """A ReLU that is computed with the layer before it: only its output is quantised."""
    return not _annotation(node).input_qspec_map


def _layer(node: Node) -> Layer:
    return Layer(node.name, str(node.target).removeprefix("aten."), _multiply_adds(node), _place(node))


def _place(node: Node) -> str:
    """The module that the operator comes from, by its path in the network."""
    stack = node.meta.get("nn_module_stack") or {}
    return next((path for path, _ in reversed(stack.values())), "")


def _multiply_adds(node: Node) -> int:
    output = node.meta["val"]
    match node.target:
        case aten.conv2d.default | aten.convolution.default:
            weight = _source(node.args[1]).meta["val"]
            return output.numel() * weight[0].numel()
        case aten.linear.default:
            return output.numel() * _source(node.args[0]).meta["val"].shape[-1]
    return 0


def _source(node: Any) -> Node:
    """What an observer observes; any other node itself."""
    source: Node = node.args[0] if node.op == "call_module" else node
    return source


class _Network(Interpreter):
    """Evaluates the prepared graph with the observers' rounding where the layers around are in int8."""

    def __init__(self, observed: GraphModule) -> None:
        super().__init__(observed)
        self._modules = dict(observed.named_modules(remove_duplicate=False))
        self._constants: dict[Node, Tensor] = {}
        self._kept: frozenset[str] = frozenset()

    def outputs(self, sample: tuple[Tensor, ...], kept: frozenset[str]) -> list[np.ndarray]:
        """The outputs for one sample with these layers in float."""
        self._kept = kept
        self._rounded: dict[Node, Tensor] = {}
        with torch.no_grad():
            results = _pytree.tree_leaves(self.run(*sample))
        return [result.numpy() for result in results]

    def run_node(self, n: Node) -> Any:
        """As the interpreter's, but observers pass values on, and their readers get them rounded or not."""
        if self._is_observer(n):
            return self.env[_source(n)]
        return super().run_node(n)

    def map_nodes_to_values(self, args: Any, n: Node) -> Any:
        """The values that a node reads."""
        return torch.fx.node.map_arg(args, lambda source: self._value(source, n))

    def _value(self, source: Node, reader: Node) -> Any:
        value = self.env[source]
        if not self._is_observer(source):
            return value
        return self._round(source, value) if self._in_int8(_source(source)) or self._in_int8(reader) else value

    def _is_observer(self, node: Any) -> bool:
        return node.op == "call_module" and isinstance(self._modules[node.target], ObserverBase)

    def _in_int8(self, node: Node) -> bool:
        annotation = _annotation(node)
        if annotation is None or node.name in self._kept:
            return False
        # A fused ReLU, and what takes over the range of the node before it, are in int8 if that one is.
        output = annotation.output_qspec
        if _is_fused(node) or (isinstance(output, SharedQuantizationSpec) and isinstance(output.edge_or_node, Node)):
            return self._in_int8(_source(node.args[0]))
        return True

    def _round(self, observer: Node, value: Tensor) -> Tensor:
        rounded = self._constants.get(observer, self._rounded.get(observer))
        if rounded is None:
            rounded = self._rounded[observer] = self._fake_quantise(str(observer.target), value)
            if _source(observer).op == "get_attr":
                self._constants[observer] = rounded
        return rounded

    def _fake_quantise(self, name: str, value: Tensor) -> Tensor:
        module: Any = self._modules[name]
        scale, zero = module.calculate_qparams()
        if module.qscheme in (torch.per_channel_symmetric, torch.per_channel_affine):
            shape = [-1 if axis == module.ch_axis else 1 for axis in range(value.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        # PyTorch's own fake_quantize_* gives the same values in four times the time.
        quanta = (value * (1 / scale)).round_()
        return quanta.clamp_(module.quant_min - zero, module.quant_max - zero).mul_(scale)
