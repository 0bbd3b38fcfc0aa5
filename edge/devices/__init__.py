"""Where a runtime runs: one file a device.

A device takes a saved artifact and the check inputs and brings back outputs. What the device does wrong (it crashes,
hangs, answers garbage) is a ``Run`` with a reason, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge.processes import Run
from edge.records import EmittedFile, RunJob

Progress = Callable[[str], None]


class Device(Protocol):
    """Where artifacts are run.

    Attributes:
        name: on the command line and in the manifest.
        samples: how many of the check samples it runs, None for all: emulation takes seconds for one.
    """

    name: str
    samples: int | None

    def obstacle(self, file: EmittedFile) -> str:
        """Why it cannot take an artifact, empty if it can."""
        ...

    def ready(self, progress: Progress) -> None:
        """Set up what it needs.

        Raises:
            SetupError: it cannot be had.
        """
        ...

    def run(self, job: RunJob) -> Run:
        """Run one artifact on the job's check samples."""
        ...

    def close(self) -> None:
        """Leave nothing behind on the device."""
        ...
