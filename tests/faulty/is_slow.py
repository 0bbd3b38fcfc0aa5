"""Takes longer than its limit, and says all the time how far it is."""

from __future__ import annotations

import logging
import time

from edge.records import EmitJob, EmittedFile

STEPS, STEP_S = 8, 1


def prepare(job: EmitJob) -> None:
    """Nothing."""


def emit(job: EmitJob, prepared: None, precision: str) -> list[EmittedFile]:
    """Step by step."""
    for step in range(STEPS):
        logging.getLogger("edge.slow").info("step %d of %d", step + 1, STEPS)
        time.sleep(STEP_S)
    return []
