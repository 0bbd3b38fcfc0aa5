"""Where a runtime runs: one file a device.

A device takes a saved artifact and the check inputs and brings back outputs. What the device does wrong (it crashes,
hangs, answers garbage) is a ``Run`` with a reason, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from edge.processes import Run
from edge.records import EmittedFile, RunJob

Progress = Callable[[str], None]


class Device(Protocol):
    """Where artifacts are run."""

    @property
    def name(self) -> str:
        """On the command line and in the manifest."""
        ...

    def samples(self, macs: int) -> int | None:
        """How many of the check samples it runs of a network with so many multiply-adds, None for all."""
        ...

    def obstacle(self, file: EmittedFile) -> str:
        """Why it cannot take an artifact, empty if it can."""
        ...

    def ready(self, progress: Progress) -> None:
        """Set up what it needs; asked before every run, so a device that is ready has nothing to do.

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


def takers(devices: Iterable[Device], file: EmittedFile) -> list[Device]:
    """Those that take an artifact."""
    return [device for device in devices if not device.obstacle(file)]


@contextmanager
def closing_all(devices: Iterable[Device]) -> Iterator[None]:
    """On the way out, also by an interruption, nothing is left behind on any of them."""
    with ExitStack() as stack:
        for device in devices:
            stack.callback(device.close)
        yield


def slug(name: str) -> str:
    """A device's name as a file's."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)
