"""Asks for more memory than it is given, as conversions of large networks do."""

import resource

from edge.records import EmitJob, EmittedFile


def prepare(job: EmitJob) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))


def emit(job: EmitJob, prepared: None, precision: str) -> list[EmittedFile]:
    bytearray(2**32)
    return []
