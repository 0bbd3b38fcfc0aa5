"""int8 by PT2E for XNNPACK: symmetric weights per output channel, activations per tensor, calibrated ranges."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY


def quantise(
    program: ExportedProgram, calibration: list[tuple[torch.Tensor, ...]]
) -> tuple[ExportedProgram, dict[str, Any]]:
    """Quantise a float32 program.

    Args:
        program: float32; its graph is used up.
        calibration: samples, each a tuple of the program's inputs.

    Returns:
        The program with quantise and dequantise in its graph, float inputs and outputs: PyTorch evaluates it as the
        simulation, XNNPACK's partitioner makes int8 operators of it. And notes on what stayed float.
    """
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    observed = prepare_pt2e(program.module(check_guards=False), quantizer)
    notes = _precision_notes(observed)
    with torch.no_grad():
        for sample in calibration:
            observed(*sample)
    return torch.export.export(convert_pt2e(observed), calibration[0]), notes


def _precision_notes(observed: GraphModule) -> dict[str, Any]:
    """How many operators compute in int8 and which stay float: those the quantizer did not annotate."""
    quantised, floating = 0, Counter[str]()
    for node in observed.graph.nodes:
        if node.op != "call_function":
            continue
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        if annotation is not None and annotation._annotated:
            quantised += 1
        else:
            floating[str(node.target)] += 1
    return {"int8_operators": quantised, "float_operators": dict(sorted(floating.items()))}
