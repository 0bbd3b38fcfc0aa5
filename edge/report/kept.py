"""What the repository keeps of finished exports: the figures, one small file a network, so that nobody has to make all
networks again to make the table again.

Each precision's figures say which command made them, of which commit, on what: a large network can be exported one
format and one precision at a time, on different days.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge import manifest as manifests
from edge import textfile
from edge.errors import InputError
from edge.report.summary import Manifest

Figures = dict[str, Any]
"""Of one network: what it is, and by format and precision the command, the environment and the artifacts."""

_ENTRY = ("format", "precision", "file", "bytes", "runs_on", "seconds", "peak_memory_mb")
_CHECK = ("device", "status", "sqnr_db", "top1")
_ENVIRONMENT = ("commit", "cpu", "platform")


def figures(manifest: Manifest) -> Figures:
    """The part of a manifest that the table is made of, and what says where it comes from."""
    origin = {"command": manifest["command"], "environment": _of(manifest["environment"], _ENVIRONMENT)}
    formats: dict[str, Figures] = {}
    for entry in manifest["artifacts"]:
        made = formats.setdefault(entry["format"], {})
        made.setdefault(entry["precision"], origin | {"artifacts": []})["artifacts"].append(_artifact(entry))
    return {
        **_of(manifest, ("schema", "model", "target")),
        "network": _of(manifest["network"], ("params", "macs")),
        "formats": formats,
    }


def _artifact(entry: Manifest) -> Figures:
    notes = {key: value for key, value in entry.get("notes", {}).items() if isinstance(value, int | float)}
    return {**_of(entry, _ENTRY), "notes": notes, "checks": [_of(check, _CHECK) for check in entry["checks"]]}


def _of(values: Manifest, names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def merge(folder: Path, exports: Path) -> dict[str, Figures]:
    """The kept figures, those of finished exports in the place of older ones of the same network, format and precision.

    Args:
        folder: of the kept figures of one target; may be missing.
        exports: the folder of a target with its finished exports; may be missing.

    Returns:
        Figures by the name of the network.

    Raises:
        InputError: a file of kept figures cannot be read.
    """
    found = {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}
    for path in sorted(exports.glob("[!.]*")):  # an export that is under way has a name with a dot
        manifest = manifests.read(path)
        if manifest is None:
            continue
        fresh = figures(manifest)
        name, made = fresh["model"], fresh["formats"]
        known = found.get(name, fresh)["formats"]
        found[name] = fresh | {"formats": known | {format: known.get(format, {}) | made[format] for format in made}}
    return found


def _read(path: Path) -> Figures:
    try:
        found: Figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}",
            stage="report",
            next_step="bring it back from the repository, or remove it and export the network again",
        ) from error
    return found


def write(found: dict[str, Figures], folder: Path) -> None:
    """Write the figures, a file a network."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figures in found.items():
        textfile.write(manifests.text(figures), folder / f"{name}.json")
