"""One copy on the disk of what several environments hold: PyTorch alone is 0.75 GB, and four of them have it.

Standard library only, as ``environments``.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path

SMALLEST = 1 << 16
"""Bytes of a file that is worth it."""


def share(environment: Path, others: list[Path]) -> int:
    """Replace what other environments hold byte for byte, in the same place, by hard links to it.

    pip writes a file anew when it changes one, so no environment sees what is done to another.

    Args:
        environment: whose files are replaced.
        others: environments on the same disk, which stay as they are; on another disk nothing is shared.

    Returns:
        Bytes saved.
    """
    saved = 0
    for file, size in _large_files(environment):
        for other in others:
            twin = other / file.relative_to(environment)
            if not _is_twin(file, twin, size):
                continue
            link = file.with_name(f"{file.name}.link")
            try:
                os.link(twin, link)
            except OSError:
                continue
            link.replace(file)
            saved += size
            break
    return saved


def _large_files(folder: Path) -> Iterator[tuple[Path, int]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            if not file.is_symlink() and (size := file.stat().st_size) >= SMALLEST:
                yield file, size


def _is_twin(file: Path, twin: Path, size: int) -> bool:
    if twin.is_symlink() or not twin.is_file() or twin.stat().st_size != size:
        return False
    return not twin.samefile(file) and filecmp.cmp(file, twin, shallow=False)
