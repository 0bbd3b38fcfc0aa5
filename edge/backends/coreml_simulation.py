"""What int8 weights cost, without coremltools: quantise the program's own weights and run it in PyTorch.

The scheme is Core ML's linear symmetric one per output channel: ``scale = max|w| / 127``, ``q = round(w / scale)`` in
-127 ... 127. coremltools computes both in the weight's own type, float16, and so does this simulation: near a tie the
rounded quotient decides, and a quantum there (40 dB against 60) would hide the converter's faults. The network runs in
float32, so what the artifact adds is its float16 arithmetic, and the converter's faults.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from edge.records import EmitJob

SIMULATED_BY = "PyTorch float32 with our own per-channel int8 weights"
SMALLEST_QUANTISED = 2049
"""Elements of a weight; smaller ones stay float16."""

_WEIGHTED = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
_LARGEST = 127


def quantise_dequantise(weight: Tensor) -> Tensor:
    """Round a weight to the values its int8 form stands for.

    Args:
        weight: float32, output channels first.

    Returns:
        float32 of the same shape: ``scale * q``, as float16 holds it.
    """
    half = weight.half()
    scale = half.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True) / _LARGEST
    steps = torch.where(scale > 0, half / scale, 0.0).round().clamp(-_LARGEST, _LARGEST)
    return (steps * scale).float()


def quantised_weights(program: ExportedProgram) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the convolution and linear weights that are large enough to be quantised."""
    parameters = program.graph_signature.inputs_to_parameters
    found = {}
    for node in program.graph.nodes:
        if node.target in _WEIGHTED:
            name = parameters.get(node.args[1].name)
            if name is not None and program.state_dict[name].numel() >= SMALLEST_QUANTISED:
                found[name] = tuple(program.state_dict[name].shape)
    return found


@torch.no_grad()
def simulate(job: EmitJob, program: ExportedProgram, results: Path) -> None:
    """Run the job's check samples through the program with quantised weights.

    Args:
        job: names of inputs and outputs, the check samples.
        program: the lowered network; left as it is.
        results: .npz to write: one array (N, ...) per output name.
    """
    network = copy.deepcopy(program.module())  # the program's weights are shared with whoever holds it
    for name in quantised_weights(program):
        weight = network.get_parameter(name)
        weight.copy_(quantise_dequantise(weight))
    with np.load(job.check_inputs) as check:
        samples = [torch.from_numpy(check[name]) for name in job.inputs]
    rows: list[tuple[Tensor, ...]] = []
    for index in range(len(samples[0])):
        outputs = network(*(s[index : index + 1] for s in samples))
        rows.append((outputs,) if isinstance(outputs, Tensor) else tuple(outputs))
    columns = zip(*rows, strict=True)
    arrays = {name: torch.cat(column).numpy() for name, column in zip(job.outputs, columns, strict=True)}
    np.savez(results, allow_pickle=False, **arrays)
