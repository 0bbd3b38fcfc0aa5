"""Write: the finished folder takes the old one's place in one step, or the old one stays.

Everything is made in ``.<model>.new`` beside the final folder. Two renames swap them; an interruption between the two
is mended by the next run, which finds the old folder under ``.<model>.old``. The formats that an interrupted run had
finished stay in ``.<model>.unfinished`` until an export of the network is whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edge import manifest as manifests
from edge import textfile
from edge.manifest import Manifest

REPORT = "report.html"


def staging(folder: Path) -> Path:
    """Where the next version of a folder is made."""
    return folder.with_name(f".{folder.name}.new")


def scratch(folder: Path) -> Path:
    """Where workers leave their files; nothing in it outlives the run."""
    return folder.with_name(f".{folder.name}.work")


def unfinished(folder: Path) -> Path:
    """Where an interrupted run's finished formats are, if there are any."""
    return folder.with_name(f".{folder.name}.unfinished")


def _retired(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def sweep(folder: Path) -> None:
    """Remove what an interrupted run left, but for the formats that it finished.

    If it was interrupted between the renames, the old folder comes back.
    """
    if _retired(folder).exists() and not folder.exists():
        _retired(folder).rename(folder)
    if manifests.read(staging(folder)):
        shutil.rmtree(unfinished(folder), ignore_errors=True)
        staging(folder).rename(unfinished(folder))
    for leftover in (staging(folder), scratch(folder), _retired(folder)):
        shutil.rmtree(leftover, ignore_errors=True)


def record(entries: list[Manifest], folder: Path) -> None:
    """Note in the staged folder which of its artifacts are finished, for the run after an interruption."""
    textfile.write(manifests.text(manifests.unfinished(entries)), staging(folder) / manifests.FILE)


def write(manifest: Manifest, folder: Path) -> None:
    """Finish the staged folder with the report and, last, the manifest; then let it take the old one's place."""
    from edge.report import page

    staged = staging(folder)
    page.write(manifest, staged / REPORT)
    textfile.write(manifests.text(manifest), staged / manifests.FILE)
    if folder.exists():
        folder.rename(_retired(folder))
    staged.rename(folder)
    shutil.rmtree(unfinished(folder), ignore_errors=True)
    sweep(folder)


def update(manifest: Manifest, folder: Path) -> None:
    """Put a finished folder's new report and, last, its new manifest in the place of the old ones."""
    from edge.report import page

    page.write(manifest, scratch(folder) / REPORT)
    (scratch(folder) / REPORT).replace(folder / REPORT)
    textfile.write(manifests.text(manifest), folder / manifests.FILE)
