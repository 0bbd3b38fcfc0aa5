"""What of an earlier run still stands: artifacts whose fingerprint is the same and whose bytes are untouched."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from edge.devices import Device
from edge.fingerprint import file_digest
from edge.manifest import Manifest, emitted_file, read
from edge.request import Unit


def _stands(entry: Manifest, folder: Path, devices: Mapping[str, Device]) -> bool:
    """Emitted, not failed, checked on every device that takes it, and the same bytes on disk."""
    if entry["file"] is None or any(check["status"] == "failed" for check in entry["checks"]):
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


def standing(folder: Path, keys: dict[Unit, str], devices: Mapping[str, Device]) -> dict[Unit, list[Manifest]]:
    """The units that need no work, each with its artifacts' entries.

    A unit is taken as a whole: if one of its files is missing, changed or failed, all of it is made again.

    Args:
        folder: of the earlier run.
        keys: the fingerprint each unit would have now.
        devices: by name, those that artifacts are to be checked on.
    """
    manifest = read(folder)
    if manifest is None:
        return {}
    found: dict[Unit, list[Manifest]] = {}
    for unit, key in keys.items():
        entries = [entry for entry in manifest["artifacts"] if entry["key"] == key]
        if entries and all(_stands(entry, folder, devices) for entry in entries):
            found[unit] = entries
    return found


def beside(standing: dict[Unit, list[Manifest]], requested: tuple[Unit, ...]) -> dict[Unit, list[Manifest]]:
    """What stands and was not asked for this time: it stays, unless the request makes the same files in another way."""
    taken = {(unit.format.name, unit.precision) for unit in requested}
    return {unit: entries for unit, entries in standing.items() if (unit.format.name, unit.precision) not in taken}


def carry_over(entries: list[Manifest], old: Path, new: Path) -> None:
    """Copy the artifacts of these entries into the folder that is being written."""
    for entry in entries:
        for name in (entry["file"], *_beside(entry)):
            source, destination = old / name, new / name
            destination.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, destination)
            else:
                shutil.copy2(source, destination)
