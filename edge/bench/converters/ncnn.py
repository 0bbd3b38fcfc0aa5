"""ncnn's converter, pnnx, reads ONNX."""

from __future__ import annotations

import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import pnnx
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
    """Write the folder ``<model>.<precision>.ncnn`` with graph and weights, both in float32.

    Raises:
        RuntimeError: pnnx gave up; its own message is in the log.
    """
    folder = job.folder / f"{job.model}.{precision}.ncnn"
    folder.mkdir()
    with tempfile.TemporaryDirectory(dir=job.folder) as work:
        source = Path(work) / "network.onnx"
        onnx_graph.save(program, job, OPSET, source)
        # Names as in edge.runtimes.ncnn; pnnx writes seven more files beside its source. It stores float16 by default.
        files = [f"ncnnparam={folder / 'network.param'}", f"ncnnbin={folder / 'network.bin'}"]
        done = subprocess.run([pnnx.EXEC_PATH, str(source), *files, "fp16=0"], cwd=work, check=False)
    if done.returncode or len(list(folder.iterdir())) != len(files):
        raise RuntimeError(f"pnnx could not convert the network, status {done.returncode}")
    blobs = [f"in{i}" for i in range(len(job.inputs))], [f"out{i}" for i in range(len(job.outputs))]
    inputs, outputs = ports.of_program(program, job, *blobs)
    tool = Tool("pnnx", version("pnnx"))
    return [EmittedFile(file=folder.name, runtime="ncnn", tool=tool, inputs=inputs, outputs=outputs)]
