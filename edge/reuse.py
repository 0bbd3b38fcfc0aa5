"""What of an earlier run still stands: artifacts whose fingerprint is the same and whose bytes are untouched."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.devices import Device
from edge.fingerprint import file_digest
from edge.manifest import Manifest, emitted_file, read
from edge.request import Unit


@dataclass(frozen=True)
class Standing:
    """A unit that needs no work: its artifacts' entries, and the folder where their files are."""

    folder: Path
    entries: list[Manifest]

    def carry_over(self, new: Path) -> None:
        """Copy the artifacts into the folder that is being written."""
        for entry in self.entries:
            for name in (entry["file"], *_beside(entry)):
                source, destination = self.folder / name, new / name
                destination.parent.mkdir(exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, destination)
                else:
                    shutil.copy2(source, destination)


def holds(entry: Manifest) -> bool:
    """Emitted, and nothing failed."""
    return entry["file"] is not None and all(check["status"] != "failed" for check in entry["checks"])


def _stands(entry: Manifest, folder: Path, devices: Mapping[str, Device]) -> bool:
    """Emitted, not failed, checked on every device that takes it, and the same bytes on disk."""
    if not holds(entry):
        return False
    file, checked = emitted_file(entry), {check["device"] for check in entry["checks"]}
    if any(name not in checked and not device.obstacle(file) for name, device in devices.items()):
        return False
    path = folder / entry["file"]
    return (
        path.exists() and file_digest(path) == entry["sha256"] and all((folder / f).is_file() for f in _beside(entry))
    )


def _beside(entry: Manifest) -> list[str]:
    """Vectors that belong to an artifact: without them it cannot be checked again."""
    return sorted({name for name in (entry["simulation"], entry["host_outputs"]) if name})


def standing(folder: Path, keys: dict[Unit, str], devices: Mapping[str, Device]) -> dict[Unit, Standing]:
    """The units of an earlier run that need no work.

    A unit is taken as a whole: if one of its files is missing, changed or failed, all of it is made again.

    Args:
        folder: of the earlier run, finished or not.
        keys: the fingerprint each unit would have now.
        devices: by name, those that artifacts are to be checked on.
    """
    manifest = read(folder)
    if manifest is None:
        return {}
    found: dict[Unit, Standing] = {}
    for unit, key in keys.items():
        entries = [entry for entry in manifest["artifacts"] if entry["key"] == key]
        if entries and all(_stands(entry, folder, devices) for entry in entries):
            found[unit] = Standing(folder, entries)
    return found


def joined(
    finished: dict[Unit, Standing], unfinished: dict[Unit, Standing], requested: tuple[Unit, ...]
) -> dict[Unit, Standing]:
    """What stands of a finished run and of an interrupted one after it.

    Where both have the same files, made in two ways, the finished run's stay unless the others are asked for.
    """
    wanted = {unit: unfinished[unit] for unit in requested if unit in unfinished}
    return beside(unfinished, tuple(finished)) | wanted | finished


def beside(standing: dict[Unit, Standing], requested: tuple[Unit, ...]) -> dict[Unit, Standing]:
    """What stands and was not asked for this time: it stays, unless the request makes the same files in another way."""
    taken = {(unit.format.name, unit.precision) for unit in requested}
    return {unit: each for unit, each in standing.items() if (unit.format.name, unit.precision) not in taken}
