"""Wheels for 64-bit Arm Linux, unpacked: the runtimes' libraries and headers for devices. Nothing in them runs here.

``requirements/NAME.lock`` holds the files with their hashes, ``requirements/NAME.members`` what is unpacked of them:
one pattern a line, in the wheels' own paths. A wheel may hold a compiler of hundreds of megabytes that no device needs.
Without such a file everything is unpacked.

Standard library only, like all set-up.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

from edge.errors import SetupError
from edge.toolchains import debian, environments
from edge.toolchains.environments import Progress, exclusive
from edge.toolchains.places import CACHE, PRIVATE, REQUIREMENTS

WHEELS = PRIVATE / "wheels"
STAMP = "wheels.sha256"
NEWEST_GLIBC = 36
"""Minor version of the C library that the bundles carry (Debian 12's): a wheel may ask for no newer one."""

PLATFORM = (
    "--only-binary=:all:",
    "--python-version=3.11",
    "--implementation=cp",
    *(f"--abi={abi}" for abi in ("cp311", "abi3", "none")),
    *(f"--platform=manylinux_2_{minor}_aarch64" for minor in range(NEWEST_GLIBC, 16, -1)),
    "--platform=manylinux2014_aarch64",
)
"""pip's options that choose files for CPython 3.11 on 64-bit Arm, whatever pip itself runs on."""


def is_foreign(name: str) -> bool:
    """Whether the requirements of that name are for 64-bit Arm, not for the machine that set-up runs on."""
    return name.startswith("aarch64")


def folder(name: str) -> Path:
    """Where the wheels of that name are unpacked; the folder may not exist yet, see ``ensure``."""
    return WHEELS / name


def digest(name: str) -> str:
    """sha256 of the lock and of the members: decides what the folder holds."""
    content = environments.lock_file(name).read_bytes() + "\n".join(_patterns(name)).encode()
    return hashlib.sha256(content).hexdigest()


def is_ready(name: str) -> bool:
    """Whether the folder is whole and was unpacked from the present lock."""
    stamp = folder(name) / STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == digest(name)


def ensure(name: str, progress: Progress = debian.print_progress) -> Path:
    """Download and unpack the wheels, unless they are there already.

    The folder gets its name last, by a rename, so what an interrupted run leaves is never mistaken for it.

    Args:
        name: a lock file in ``requirements``, of 64-bit Arm.
        progress: called with a line of text as the work goes on.

    Returns:
        The folder, laid out as ``site-packages`` would be.

    Raises:
        SetupError: no network, or files that are not the locked ones.
    """
    if not is_ready(name):
        with exclusive(WHEELS / f".{name}.lock"):
            if not is_ready(name):
                _make(name, progress)
    return folder(name)


def _patterns(name: str) -> list[str]:
    members = REQUIREMENTS / f"{name}.members"
    lines = members.read_text(encoding="utf-8").splitlines() if members.is_file() else ["*"]
    return [line for line in lines if line and not line.startswith("#")]


def _make(name: str, progress: Progress) -> None:
    work = WHEELS / f".{name}.partial"
    shutil.rmtree(work, ignore_errors=True)
    try:
        _download(name, work / "files", progress)
        progress(f"wheels {name}: unpacking")
        for wheel in sorted((work / "files").glob("*.whl")):
            _unpack(wheel, _patterns(name), work / "root")
        (work / "root" / STAMP).write_text(digest(name), encoding="utf-8")
        shutil.rmtree(folder(name), ignore_errors=True)
        (work / "root").rename(folder(name))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    progress(f"wheels {name}: ready")


def _download(name: str, place: Path, progress: Progress) -> None:
    lock = environments.lock_file(name)
    count = sum("==" in line for line in lock.read_text(encoding="utf-8").splitlines())
    progress(f"wheels {name}: downloading {count} files for 64-bit Arm")
    pip = [str(environments.python("base")), "-m", "pip", "--no-input", "--disable-pip-version-check", "download"]
    # --no-deps: the lock is the whole closure.
    options = ["--quiet", "--no-deps", "--require-hashes", *PLATFORM, "-r", str(lock), "-d", str(place)]
    environment = {**os.environ, "PIP_CACHE_DIR": str(CACHE / "pip"), "PIP_PROGRESS_BAR": "off"}
    done = subprocess.run([*pip, *options], env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        errors = [line.strip() for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise SetupError(
            f"pip could not download the wheels of {lock.name}: {' '.join(errors or done.stderr.split()[-20:])[:400]}",
            stage="setup",
            next_step="check the network and that pip's index carries these files for aarch64",
        )


def _unpack(wheel: Path, patterns: list[str], root: Path) -> None:
    """Unpack the members that match a pattern.

    Raises:
        SetupError: none does, so the wheel is no longer laid out as its patterns say.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if any(fnmatch.fnmatchcase(name, p) for p in patterns)]
        archive.extractall(root, members)
    if not members:
        raise SetupError(
            f"nothing in {wheel.name} is asked for",
            stage="setup",
            next_step="name what is needed of it beside its lock in edge/toolchains/requirements",
        )
