"""How a bench comes by its figures: counted on an emulated core (``counting``), or timed on the host (``timing``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge.bench.entrant import Entrant
from edge.bench.results import Row
from edge.devices import Device
from edge.finished import Finished
from edge.manifest import Manifest
from edge.progress import Reporter
from edge.records import EmittedFile
from edge.request import Request


class Measure(Protocol):
    """One way to measure."""

    @property
    def by(self) -> str:
        """The field of ``Row`` that rows are compared by."""
        ...

    @property
    def core(self) -> str:
        """What runs the artifacts, with its article."""
        ...

    @property
    def wheels(self) -> str:
        """The lock that has the peers' runtimes."""
        ...

    @property
    def device(self) -> Device:
        """Where peers run."""
        ...

    def obstacle(self, file: EmittedFile) -> str:
        """Why an artifact of our own is not among those compared, empty if it is."""
        ...

    def export(self, request: Request, reporter: Reporter) -> Manifest:
        """What stands of our own artifacts, and is checked where they are measured.

        Raises:
            EdgeError: it could not be made.
        """
        ...

    def rows(self, entrants: Sequence[Entrant], finished: Finished, reporter: Reporter) -> tuple[Row, ...]:
        """A row an entrant, with its figures and its ratio to the best peer."""
        ...

    def method(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """How the rows' figures were made and what they do not know, as sentences."""
        ...
