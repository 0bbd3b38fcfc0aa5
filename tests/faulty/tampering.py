"""Changing a lowered program on its way to a real exporter."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch.export import ExportedProgram

from edge.records import EmitJob


def with_program(job: EmitJob, change: Callable[[ExportedProgram], ExportedProgram]) -> EmitJob:
    """The same job with a changed program."""
    path = job.folder / "tampered.pt2"
    torch.export.save(change(torch.export.load(job.program)), path)
    return replace(job, program=path)
