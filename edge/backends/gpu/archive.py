"""An artifact as a tar archive: the same members give the same bytes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def write(path: Path, members: Mapping[str, bytes]) -> None:
    """Write members in the order given, without owner or time."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def read(path: Path) -> dict[str, bytes]:
    """The members by name, in order.

    Raises:
        tarfile.TarError: the file is no archive, or cut short.
    """
    with tarfile.open(path, "r:") as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive.getmembers()}  # type: ignore[union-attr]
