"""What the repository keeps of finished exports: the figures, one small file a network, so that nobody has to make all
networks again to make the table again.
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

_ENTRY = ("format", "precision", "file", "bytes", "runs_on", "seconds", "peak_memory_mb")
_CHECK = ("device", "status", "sqnr_db", "top1")
_ENVIRONMENT = ("commit", "cpu", "platform")


def figures(manifest: Manifest) -> dict[str, Any]:
    """The part of a manifest that the table is made of, and what says where it comes from."""
    return {
        **_of(manifest, ("schema", "model", "target", "command")),
        "network": _of(manifest["network"], ("params", "macs")),
        "environment": _of(manifest["environment"], _ENVIRONMENT),
        "artifacts": [
            {
                **_of(entry, _ENTRY),
                "notes": {
                    key: value for key, value in entry.get("notes", {}).items() if isinstance(value, int | float)
                },
                "checks": [_of(check, _CHECK) for check in entry["checks"]],
            }
            for entry in manifest["artifacts"]
        ],
    }


def _of(values: Manifest, names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def merge(folder: Path, exports: Path) -> tuple[dict[str, Manifest], list[str]]:
    """The kept figures, those of finished exports in the place of older ones of the same network.

    An export that has not all of the formats and precisions that are kept does not replace them.

    Args:
        folder: of the kept figures of one target; may be missing.
        exports: the folder of a target with its finished exports; may be missing.

    Returns:
        Figures by the name of the network; networks whose export is a smaller one than what is kept.

    Raises:
        InputError: a file of kept figures cannot be read.
    """
    found = {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}
    smaller = []
    for path in sorted(exports.glob("[!.]*")):  # an export that is under way has a name with a dot
        manifest = manifests.read(path)
        if manifest is None:
            continue
        name = manifest["model"]
        if name in found and not _units(found[name]) <= _units(manifest):
            smaller.append(name)
        else:
            found[name] = figures(manifest)
    return found, smaller


def _read(path: Path) -> Manifest:
    try:
        found: Manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}",
            stage="report",
            next_step="bring it back from the repository, or remove it and export the network again",
        ) from error
    return found


def _units(manifest: Manifest) -> set[tuple[str, str]]:
    return {(entry["format"], entry["precision"]) for entry in manifest["artifacts"]}


def write(found: dict[str, Manifest], folder: Path) -> None:
    """Write the figures, a file a network."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, manifest in found.items():
        textfile.write(manifests.text(dict(manifest)), folder / f"{name}.json")
