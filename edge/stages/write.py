"""Write: the finished folder takes the old one's place in one step, or the old one stays.

Everything is made in ``.<model>.new`` beside the final folder. Two renames swap them; an interruption between the two
is mended by the next run, which finds the old folder under ``.<model>.old``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edge import manifest as manifests
from edge.manifest import Manifest

REPORT = "report.html"


def staging(folder: Path) -> Path:
    """Where the next version of a folder is made."""
    return folder.with_name(f".{folder.name}.new")


def scratch(folder: Path) -> Path:
    """Where workers leave their files; nothing in it outlives the run."""
    return folder.with_name(f".{folder.name}.work")


def _retired(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def sweep(folder: Path) -> None:
    """Remove what an interrupted run left, and bring back the old folder if it was interrupted between the renames."""
    if _retired(folder).exists() and not folder.exists():
        _retired(folder).rename(folder)
    for leftover in (staging(folder), scratch(folder), _retired(folder)):
        shutil.rmtree(leftover, ignore_errors=True)


def write(manifest: Manifest, folder: Path) -> None:
    """Finish the staged folder with the report and, last, the manifest; then let it take the old one's place."""
    from edge.report import page

    staged = staging(folder)
    page.write(manifest, staged / REPORT)
    (staged / manifests.FILE).write_text(manifests.text(manifest), encoding="utf-8")
    if folder.exists():
        folder.rename(_retired(folder))
    staged.rename(folder)
    sweep(folder)


def update(manifest: Manifest, folder: Path) -> None:
    """Put a finished folder's new report and, last, its new manifest in the place of the old ones."""
    from edge.report import page

    staged = staging(folder)
    staged.mkdir(parents=True)
    page.write(manifest, staged / REPORT)
    (staged / manifests.FILE).write_text(manifests.text(manifest), encoding="utf-8")
    for name in (REPORT, manifests.FILE):
        (staged / name).replace(folder / name)
