"""int8 by PT2E for XNNPACK: symmetric weights per output channel, activations per tensor, calibrated ranges."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import QuantizationConfig
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torchao.quantization.pt2e.observer import (
    HistogramObserver,
    MinMaxObserver,
    ObserverBase,
    PerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY, QuantizationAnnotation, QuantizationSpec

from edge.calibration.focus import out_of_focus

Samples = Sequence[tuple[torch.Tensor, ...]]

_SMALLEST_SCALE = 2**-12
"""Of activations, as in XNNPACK's own configuration."""

_SMALLEST_WEIGHT_SCALE = 2**-16
"""XNNPACK's configuration has 2**-12 here, too: a channel whose weights are all below 0.03 gets fewer steps than int8
has, and in ShiftwiseConv every fifth channel is one. Much smaller, and biases, whose scale is the product of this and
the input's, no longer fit into int32."""


def _configuration(observer: type) -> QuantizationConfig:
    plain = get_symmetric_quantization_config(is_per_channel=True)

    def observed_by(ranges: type, spec: QuantizationSpec, eps: float) -> QuantizationSpec:
        return replace(spec, observer_or_fake_quant_ctr=ranges.with_args(eps=eps))  # type: ignore[attr-defined]

    activation = observed_by(observer, plain.input_activation, _SMALLEST_SCALE)
    weight = observed_by(PerChannelMinMaxObserver, plain.weight, _SMALLEST_WEIGHT_SCALE)
    return QuantizationConfig(activation, activation, weight, plain.bias, plain.is_qat)


def with_blurred(samples: Samples) -> Samples:
    """These samples, and behind them the same out of focus."""
    return [*samples, *(tuple(map(out_of_focus, sample)) for sample in samples)]


@dataclass(frozen=True)
class RangeRule:
    """How an activation's range is taken from what is observed.

    Attributes:
        configuration: with the rule's observers.
        reaches_far: images out of focus are observed, too. A histogram would weigh them like the others.
    """

    configuration: QuantizationConfig
    reaches_far: bool

    def observed(self, calibration: Samples) -> Samples:
        """What the observers are to see of these samples."""
        return with_blurred(calibration) if self.reaches_far else calibration


RANGE_RULES = {
    "histogram": RangeRule(_configuration(HistogramObserver), reaches_far=False),
    "min-max": RangeRule(_configuration(MinMaxObserver), reaches_far=True),
}


class _Quantizer(XNNPACKQuantizer):
    """XNNPACK's quantizer, which leaves some layers in float.

    They are marked as dealt with, with nothing to quantise. The quantizer's own filter will not do: concatenations do
    not ask it.
    """

    def __init__(self, kept: frozenset[str]) -> None:
        super().__init__()
        self.kept = kept

    def annotate(self, model: GraphModule) -> GraphModule:
        for node in model.graph.nodes:
            if node.name in self.kept:
                node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(_annotated=True)
        return super().annotate(model)


def with_observers(program: ExportedProgram, rule: str, kept: frozenset[str] = frozenset()) -> GraphModule:
    """Put observers where a float32 program is to be quantised.

    Args:
        program: float32; its graph is used up.
        rule: one of ``RANGE_RULES``.
        kept: names of the nodes that stay in float.
    """
    quantizer = _Quantizer(kept).set_global(RANGE_RULES[rule].configuration)
    prepared: GraphModule = prepare_pt2e(program.module(check_guards=False), quantizer)
    return prepared


def observe(prepared: GraphModule, rule: str, calibration: Samples) -> GraphModule:
    """Let a rule's observers see the calibration samples, each a tuple of the program's inputs; they see no more then.

    The ranges are asked for by the simulation and by the conversion, and a histogram's take a while: once will do.
    """
    with torch.no_grad():
        for sample in RANGE_RULES[rule].observed(calibration):
            prepared(*sample)
    for module in prepared.modules():
        if isinstance(module, ObserverBase):
            module.calculate_qparams = functools.cache(module.calculate_qparams)
    return prepared


def quantise(observed: GraphModule, sample: tuple[torch.Tensor, ...]) -> tuple[ExportedProgram, dict[str, Any]]:
    """Quantise what was observed.

    Args:
        observed: by ``observe``; used up.
        sample: any of the calibration samples.

    Returns:
        The program with quantise and dequantise in its graph, float inputs and outputs: PyTorch evaluates it as the
        simulation, XNNPACK's partitioner makes int8 operators of it. And notes on what stayed float.
    """
    notes = _precision_notes(observed)
    return torch.export.export(convert_pt2e(observed), sample), notes


def _precision_notes(observed: GraphModule) -> dict[str, Any]:
    """How many operators compute in int8 and which stay float: those the quantizer did not annotate, or was told to."""
    quantised, floating = 0, Counter[str]()
    for node in observed.graph.nodes:
        if node.op != "call_function":
            continue
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        if annotation is not None and (annotation.input_qspec_map or annotation.output_qspec):
            quantised += 1
        else:
            floating[str(node.target)] += 1
    return {"int8_operators": quantised, "float_operators": dict(sorted(floating.items()))}
