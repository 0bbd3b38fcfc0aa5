"""What both TFLite converters share: names of files, calibration samples in the files' layout, the record of a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge import worker
from edge.backends import tflite_file, tflite_operators, tflite_weights
from edge.records import EmitJob, EmittedFile, RunJob, Tool

SIMULATED_BY = "the same file under LiteRT's reference kernels"


def destination(job: EmitJob, precision: str) -> Path:
    """Where the file of that precision goes."""
    return job.folder / f"{job.model}.{precision}.tflite"


def _channels_last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array


def calibration_samples(job: EmitJob) -> dict[str, np.ndarray]:
    """The calibration set by input name: feature maps (N, H, W, C), anything else as it is."""
    with np.load(job.calibration) as arrays:
        return {name: _channels_last(arrays[name]) for name in job.inputs}


def emitted(job: EmitJob, precision: str, tool: Tool, original: bytes) -> EmittedFile:
    """Read the written file back and say what it is; an int8 one is also run with the reference kernels.

    Args:
        job: what is emitted.
        precision: of the file, which lies at its ``destination``.
        tool: what wrote it.
        original: content of the float32 file, which an int8 one's weights are held against.
    """
    path = destination(job, precision)
    inputs = tflite_file.ports(path, job.inputs, side="inputs")
    outputs = tflite_file.ports(path, job.outputs, side="outputs")
    notes = tflite_file.operator_notes(path) | tflite_file.delegation_notes(path)
    file = EmittedFile(path.name, "litert", tool, inputs, outputs, notes=notes)
    if precision != "int8":
        return file
    with np.load(job.check_inputs) as arrays:
        sample = {name: _channels_last(arrays[name][:1]) for name in job.inputs}
    notes = file.notes | tflite_file.quantisation_notes(path) | tflite_operators.deviation_notes(path, sample)
    notes["largest_weight_error_quanta"] = round(tflite_weights.largest_error_quanta(original, path.read_bytes()), 4)
    simulation = path.with_suffix(".simulation.npz")
    reference = RunJob("litert_reference", path, inputs, outputs, job.check_inputs, simulation, job.threads)
    results: dict[str, Any] = worker.run_all(reference)[0]
    np.savez(simulation, **results)
    return replace(file, notes=notes, simulation=simulation.name, simulated_by=SIMULATED_BY)
