"""Who takes part in a bench: an artifact of a finished export, or of a peer's converter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edge.bench.results import Row
from edge.devices import native
from edge.formats import FORMATS
from edge.manifest import Manifest, emitted_file
from edge.records import EmittedFile

KERNELS = {"litert": "XNNPACK", "executorch": "XNNPACK"}
"""Whose kernels a runtime of ours runs, where its name does not say it."""


@dataclass(frozen=True)
class Entrant:
    """An artifact, ours or a peer's.

    Attributes:
        row: what is known of it; it passed its check, or says why not.
        file: as emitted; None if there is none.
        artifact: the saved file.
    """

    row: Row
    file: EmittedFile | None = None
    artifact: Path | None = None

    @property
    def has_passed(self) -> bool:
        """Whether figures are wanted of it: those of a wrong result are not."""
        return self.row.status == "passed"

    def failed(self, reason: str) -> Entrant:
        """The entrant out of the running."""
        return replace(self, row=replace(self.row, status="failed", reason=reason))


def check_of(entry: Manifest, device: str) -> Manifest:
    """What became of an artifact's check on a device."""
    skipped = {"status": "skipped", "reason": f"not checked on {device}"}
    return next((check for check in entry["checks"] if check["device"] == device), skipped)


def unmade(entry: Manifest, device: str) -> Entrant:
    """What the export was asked for and could not make: a row with the reason, lest nobody miss it."""
    (check,) = entry["checks"]
    row = Row(
        runtime=FORMATS[entry["format"]].title,
        format=entry["format"],
        precision=entry["precision"],
        device=device,
        file="",
        bytes=None,
        status=check["status"],
        reason=check["reason"],
    )
    return Entrant(row)


def own(entry: Manifest, folder: Path, device: str) -> Entrant:
    """An artifact of ours.

    Args:
        entry: of the manifest; there is a file.
        folder: of the export.
        device: the name of the one where it was checked.
    """
    file, check = emitted_file(entry), check_of(entry, device)
    kernels = KERNELS.get(file.runtime)
    row = Row(
        runtime=f"{native.title(file.runtime)}{f' {kernels}' if kernels else ''}",
        format=entry["format"],
        precision=entry["precision"],
        device=device,
        file=file.file,
        bytes=entry["bytes"],
        status=check["status"],
        reason=check["reason"],
        sqnr_db=check.get("sqnr_db"),
    )
    return Entrant(row, file, folder / file.file)
