"""MNN's converter reads ONNX.

It is called as a function: the program ``mnnconvert`` also installs a package with the first pip it finds, and reports
each conversion to its authors.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

import MNN  # noqa: F401  The converter's module lies in its folder.
import torch
from torch.export import ExportedProgram

from edge.bench.converters import onnx_graph, ports
from edge.records import EmitJob, EmittedFile, Tool

OPSET = 18
"""GELU as its formula: of the operator of later sets MNN takes the tanh form, and 76 dB are left of 126."""


def prepare(job: EmitJob) -> ExportedProgram:
    """Read the program."""
    return torch.export.load(job.program)


def emit(job: EmitJob, program: ExportedProgram, precision: str) -> list[EmittedFile]:
    """Write ``<model>.<precision>.mnn``.

    Raises:
        RuntimeError: the converter wrote no file; its own message is in the log.
    """
    import _tools

    file = f"{job.model}.{precision}.mnn"
    with tempfile.TemporaryDirectory(dir=job.folder) as work:
        source = Path(work) / "network.onnx"
        onnx_graph.save(program, job, OPSET, source)
        paths = ["--modelFile", str(source), "--MNNModel", str(job.folder / file)]
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *paths, "--bizCode", "edge"])
    if not (job.folder / file).is_file():
        raise RuntimeError("MNN's converter wrote no file")
    inputs, outputs = ports.of_program(program, job, job.inputs, job.outputs)
    tool = Tool("mnnconvert", version("MNN"))
    return [EmittedFile(file=file, runtime="mnn", tool=tool, inputs=inputs, outputs=outputs)]
