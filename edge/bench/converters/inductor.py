"""torch.compile reads the lowered network as it is; its compiler runs where the file is loaded."""

from __future__ import annotations

import shutil
from importlib.metadata import version

import torch
from torch.export import ExportedProgram

from edge.bench.converters import ports
from edge.errors import SetupError
from edge.records import EmitJob, EmittedFile, Tool

COMPILER = "g++"


def prepare(job: EmitJob) -> ExportedProgram:
    """Read the program.

    Raises:
        SetupError: there is no compiler on this host.
    """
    if shutil.which(COMPILER) is None:
        raise SetupError(
            f"Inductor needs {COMPILER} on this host", stage="bench", next_step=f"install {COMPILER}, such as Debian's"
        )
    return torch.export.load(job.program)


def emit(job: EmitJob, program: ExportedProgram, precision: str) -> list[EmittedFile]:
    """Write ``<model>.<precision>.pt2``."""
    file = f"{job.model}.{precision}.pt2"
    torch.export.save(program, job.folder / file)
    inputs, outputs = ports.of_program(program, job, job.inputs, job.outputs)
    tool = Tool("torch.export", version("torch"))
    return [EmittedFile(file=file, runtime="inductor", tool=tool, inputs=inputs, outputs=outputs)]
