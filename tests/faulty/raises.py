"""Raises while it prepares, as converters do on an operator they do not know."""

from edge.records import EmitJob, EmittedFile


def prepare(job: EmitJob) -> None:
    raise ValueError("no lowering for aten.frobnicate\nand forty lines of stack")


def emit(job: EmitJob, prepared: None, precision: str) -> list[EmittedFile]:
    return []
