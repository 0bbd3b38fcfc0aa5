"""Never ends, and starts a child that would not either."""

import subprocess
import time

from edge.records import EmitJob, EmittedFile


def prepare(job: EmitJob) -> None:
    child = subprocess.Popen(["sleep", "600"])
    (job.folder / "child.pid").write_text(str(child.pid))


def emit(job: EmitJob, prepared: None, precision: str) -> list[EmittedFile]:
    time.sleep(600)
    return []
