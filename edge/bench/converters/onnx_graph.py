"""The lowered network as an ONNX graph."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import ExportedProgram

from edge.records import EmitJob


def save(program: ExportedProgram, job: EmitJob, opset: int, path: Path) -> None:
    """Write the program as an .onnx file of that operator set, its inputs and outputs named as the job's."""
    graph = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=opset,
        input_names=list(job.inputs),
        output_names=list(job.outputs),
        verbose=False,
    )
    assert graph is not None
    graph.save(path, external_data=False)
