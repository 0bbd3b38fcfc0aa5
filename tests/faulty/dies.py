"""Dies of a segmentation fault on int8, after it has emitted fp32."""

import ctypes
import sys

from edge.records import EmitJob, EmittedFile, Tool


def prepare(job: EmitJob) -> None:
    print("converter: about to do something unwise", file=sys.stderr)


def emit(job: EmitJob, prepared: None, precision: str) -> list[EmittedFile]:
    if precision == "int8":
        ctypes.string_at(0)
    file = f"{job.model}.{precision}.bin"
    (job.folder / file).write_bytes(b"artifact")
    return [EmittedFile(file, "litert", Tool("dies", "1"), (), ())]
