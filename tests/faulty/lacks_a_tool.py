"""Needs a tool that cannot be had."""

from edge.errors import SetupError
from edge.records import EmitJob, EmittedFile


def prepare(job: EmitJob) -> None:
    raise SetupError("this host has no apt-get", stage="setup", next_step="run on Debian")


def emit(job: EmitJob, prepared: None, precision: str) -> list[EmittedFile]:
    return []
