"""What decides an artifact, as one digest: the same fingerprint means the same bytes, so nothing is done twice.

Everything counts: our own code, the lock files, the target's profile, the weights, the calibration files and the
choices of the command. No heavy import: this is all that a run with nothing to do executes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge.toolchains.environments import lock_digest
from edge.toolchains.places import REPOSITORY

SOURCES = ("edge", "models", "targets", "calibration")
SUFFIXES = {".py", ".toml", ".html", ".css", ".json", ".cc", ".c", ".h"}


def file_digest(path: Path) -> str:
    """sha256 of a file, or of a folder's files with their names (an ``.mlpackage`` is a folder)."""
    if path.is_dir():
        parts = sorted(p for p in path.rglob("*") if p.is_file())
        return text_digest([f"{p.relative_to(path).as_posix()} {file_digest(p)}" for p in parts])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_bytes(path: Path) -> int:
    """Of a file, or of all files of a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def text_digest(parts: Iterable[str]) -> str:
    """sha256 of lines of text."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def source_digest() -> str:
    """sha256 of the pipeline's own code."""
    files = sorted(
        path
        for folder in SOURCES
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in SUFFIXES and path.is_file()
    )
    return text_digest(f"{path.relative_to(REPOSITORY).as_posix()} {file_digest(path)}" for path in files)


def commit() -> str:
    """The commit of the pipeline's own code, with ``-dirty`` where files differ from it; "" outside a git checkout."""
    line = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=10"]
    try:
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def artifact_key(common: dict[str, Any], *, format: str, converter: str, precision: str, environment: str) -> str:
    """The fingerprint of one precision of one format.

    Args:
        common: what all artifacts of the run depend on, JSON-ready.
        format: its name.
        converter: its name.
        precision: its name.
        environment: where the converter runs; its lock file counts.
    """
    own = {"format": format, "converter": converter, "precision": precision, "lock": lock_digest(environment)}
    return text_digest([json.dumps({**common, **own}, sort_keys=True)])
