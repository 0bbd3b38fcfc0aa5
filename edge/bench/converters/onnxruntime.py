"""ONNX Runtime reads ONNX as PyTorch exports it."""

from __future__ import annotations

from importlib.metadata import version

import torch
from torch.export import ExportedProgram

from edge.bench.converters import onnx_graph, ports
from edge.records import EmitJob, EmittedFile, Tool

OPSET = 20
"""The first in which GELU is one operator."""


def prepare(job: EmitJob) -> ExportedProgram:
    """Read the program."""
    return torch.export.load(job.program)


def emit(job: EmitJob, program: ExportedProgram, precision: str) -> list[EmittedFile]:
    """Write ``<model>.<precision>.onnx``."""
    file = f"{job.model}.{precision}.onnx"
    onnx_graph.save(program, job, OPSET, job.folder / file)
    inputs, outputs = ports.of_program(program, job, job.inputs, job.outputs)
    tool = Tool("torch.onnx", version("torch"))
    return [EmittedFile(file=file, runtime="onnxruntime", tool=tool, inputs=inputs, outputs=outputs)]
