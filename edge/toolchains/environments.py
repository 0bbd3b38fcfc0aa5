"""Python environments from lock files: the pipeline's own, and one for each exporter that cannot share it.

Standard library only: ``make`` runs it with the system's Python before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import SetupError
from edge.toolchains.places import BASE_ENVIRONMENT, CACHE, ENVIRONMENTS, PRIVATE, REPOSITORY, REQUIREMENTS
from edge.toolchains.shared_files import share

PYTHON_VERSION = (3, 11)
Progress = Callable[[str], None]


def lock_file(name: str) -> Path:
    """The environment's locked requirements."""
    return REQUIREMENTS / f"{name}.lock"


def lock_digest(name: str) -> str:
    """sha256 of the locked requirements: decides what the environment holds."""
    return hashlib.sha256(lock_file(name).read_bytes()).hexdigest()


def folder(name: str) -> Path:
    """Where the environment lives."""
    return BASE_ENVIRONMENT if name == "base" else ENVIRONMENTS / name


def python(name: str) -> Path:
    """The environment's interpreter; the file may not exist yet, see ``ensure``."""
    return folder(name) / "bin" / "python"


def is_ready(name: str) -> bool:
    """Whether the environment is whole and made from the present lock."""
    stamp = folder(name) / "lock.sha256"
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == lock_digest(name)


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock file, so that two runs do not make the same thing; ``on_wait`` is called if another has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure(name: str, progress: Progress) -> Path:
    """Make the environment unless it is there already; the stamp is written last, so half an environment is made again.

    Args:
        name: a lock file in ``requirements``.
        progress: called with a line of text as the work goes on.

    Returns:
        The environment's interpreter.

    Raises:
        SetupError: wrong Python, no network, or a package that cannot be had.
    """
    if is_ready(name):
        return python(name)
    with exclusive(PRIVATE / f"{name}.lock"):
        if not is_ready(name):
            _make(name, progress)
    return python(name)


def _make(name: str, progress: Progress) -> None:
    if sys.version_info[:2] != PYTHON_VERSION:
        found = ".".join(map(str, sys.version_info[:3]))
        raise SetupError(
            f"the environments are locked for Python 3.11, this is {found}",
            stage="setup",
            next_step="run make with PYTHON=python3.11",
        )
    target = folder(name)
    if target.resolve() == Path(sys.prefix).resolve():
        raise SetupError(
            f"the lock of the environment {name} has changed since it was made, and this program runs in it",
            stage="setup",
            next_step="run `make setup`, which makes it anew",
        )
    shutil.rmtree(target, ignore_errors=True)
    progress(f"environment {name}: creating")
    try:
        # Links, as the command line makes them: a copy of the interpreter that is still open for writing in a process
        # another thread is just starting cannot be executed.
        venv.create(target, with_pip=True, symlinks=True)
    except (subprocess.CalledProcessError, OSError) as error:
        raise SetupError(
            f"could not create the environment {name}: {error}",
            stage="setup",
            next_step="Debian keeps venv in its own package: apt-get install python3.11-venv",
        ) from None
    _install(name, progress)
    if name == "base":
        _pip(name, ["install", "--no-deps", "--no-build-isolation", "-e", str(REPOSITORY)], progress, total=0)
    saved = share(target, [other for other in (BASE_ENVIRONMENT, *sorted(ENVIRONMENTS.glob("*"))) if other != target])
    if saved:
        progress(f"environment {name}: {saved / 1e9:.1f} GB of it is shared with the others")
    (target / "lock.sha256").write_text(lock_digest(name), encoding="utf-8")
    progress(f"environment {name}: ready")


def _install(name: str, progress: Progress) -> None:
    total = sum("==" in line for line in lock_file(name).read_text(encoding="utf-8").splitlines())
    # --no-deps: the lock is the whole closure; resolving again could only disagree with it.
    _pip(name, ["install", "--no-deps", "--require-hashes", "-r", str(lock_file(name))], progress, total)


def _pip(name: str, arguments: list[str], progress: Progress, total: int) -> None:
    command = [str(python(name)), "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    environment = {**os.environ, "PIP_CACHE_DIR": str(CACHE / "pip"), "PIP_PROGRESS_BAR": "off"}
    process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    lines: list[str] = []
    collected = 0
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith(("Collecting", "Processing")):
            collected += 1
            if collected % 10 == 0 or collected == total:
                progress(f"environment {name}: {collected} of {total} packages fetched")
        elif line.startswith("Installing collected"):
            progress(f"environment {name}: installing")
    if process.wait():
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-3:]
        raise SetupError(
            f"pip could not make the environment {name}: {' '.join(errors)[:400]}",
            stage="setup",
            next_step=(
                "check the network; torch is locked to its CPU build, which the default index does not carry: name a "
                "folder or an index that has it in PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL"
            ),
        )


def main(names: list[str]) -> int:
    """Make the named environments, with progress on stderr."""
    try:
        for name in names:
            ensure(name, lambda line: print(line, file=sys.stderr, flush=True))
    except SetupError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
