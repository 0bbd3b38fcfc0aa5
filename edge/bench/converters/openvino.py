"""OpenVINO reads ONNX as PyTorch exports it."""

from __future__ import annotations

from dataclasses import replace

from torch.export import ExportedProgram

from edge.bench.converters import onnxruntime
from edge.records import EmitJob, EmittedFile

prepare = onnxruntime.prepare


def emit(job: EmitJob, program: ExportedProgram, precision: str) -> list[EmittedFile]:
    """Write ``<model>.<precision>.onnx``."""
    return [replace(file, runtime="openvino") for file in onnxruntime.emit(job, program, precision)]
