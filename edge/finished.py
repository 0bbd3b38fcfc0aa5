"""A finished export, opened again: its artifacts can be checked on another device, or their cost counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge import manifest as manifests
from edge import processes
from edge.errors import ExportError, InputError, UsageError
from edge.fingerprint import file_digest, text_digest
from edge.manifest import Manifest
from edge.parity import vectors as check_vectors
from edge.parity.vectors import Vectors
from edge.progress import Reporter
from edge.stages import write
from edge.targets import Target
from edge.toolchains.environments import exclusive
from edge.toolchains.places import LOCKS


@dataclass(frozen=True)
class Finished:
    """What lies in the folder of an export.

    Attributes:
        folder: absolute.
        manifest: as read; what a command adds goes into it.
        target: as it was when the artifacts were made.
        work: for files that nobody needs afterwards.
    """

    folder: Path
    manifest: Manifest
    target: Target
    work: Path

    @property
    def artifacts(self) -> list[Manifest]:
        """Entries of which there is a file."""
        return [entry for entry in self.manifest["artifacts"] if entry["file"]]

    def vectors(self, stage: str) -> Vectors:
        """The check vectors that lie beside the artifacts.

        Raises:
            InputError: they cannot be read; ``stage`` is who needs them.
        """
        try:
            return check_vectors.load(self.folder / check_vectors.FOLDER)
        except (OSError, ValueError) as error:
            raise InputError(
                f"its check vectors cannot be read: {error}",
                stage=stage,
                model=self.manifest["model"],
                target=self.target.name,
                next_step=f"make them again: {self.manifest['command']}",
            ) from None


@contextmanager
def opened(folder: Path, reporter: Reporter) -> Iterator[Finished]:
    """Hold the folder of an export, and write its manifest and report anew if all goes well.

    Raises:
        InputError: there is no finished export, it is another version's, or an artifact has been changed since.
    """
    folder = folder.absolute()
    with held(folder, reporter.note):
        finished = Finished(folder, *_read(folder), write.scratch(folder))
        write.sweep(folder)
        finished.work.mkdir(parents=True)
        try:
            with processes.session():
                yield finished
            write.update(finished.manifest, folder)
        except OSError as error:
            raise ExportError(
                f"could not write {error.filename or folder}: {error.strerror or error}",
                stage="write",
                model=finished.manifest["model"],
                target=finished.target.name,
                next_step="check that the folder may be written and the disk has room; what was there is untouched",
            ) from error
        finally:
            write.sweep(folder)


@contextmanager
def held(folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder against other runs; ``note`` is told if one has it already."""
    lock = LOCKS / text_digest([str(folder.resolve())])
    with exclusive(lock, lambda: note(f"waiting for another run that writes {os.path.relpath(folder)}")):
        yield


def _read(folder: Path) -> tuple[Manifest, Target]:
    manifest = manifests.read(folder)
    if manifest is None:
        raise InputError(
            f"{folder} holds no finished export of this version",
            stage="verify",
            next_step="name a folder that `make export` wrote, such as dist/cortex-a72/fasternet_t1, or run it again",
        )
    changed = [
        entry["file"]
        for entry in manifest["artifacts"]
        if entry["file"] and not _is_unchanged(folder / entry["file"], entry["sha256"])
    ]
    if changed:
        raise InputError(
            f"{', '.join(changed)} in {folder} is not what was made and checked",
            stage="verify",
            model=manifest["model"],
            target=manifest["target"],
            next_step=f"make it again: {manifest['command']}",
        )
    return manifest, Target.model_validate(manifest["profile"])


def _is_unchanged(artifact: Path, digest: str) -> bool:
    return artifact.exists() and file_digest(artifact) == digest


def chosen(finished: Finished, names: tuple[str, ...]) -> list[Manifest]:
    """Entries of the artifacts named, all if none is.

    Raises:
        UsageError: there is no artifact of that name.
    """
    files = [entry["file"] for entry in finished.artifacts]
    unknown = [name for name in names if name not in files]
    if unknown:
        raise UsageError(
            f"there is no artifact {', '.join(unknown)}",
            stage="verify",
            model=finished.manifest["model"],
            target=finished.target.name,
            next_step=f"there are {', '.join(files)}",
        )
    return [entry for entry in finished.artifacts if not names or entry["file"] in names]
