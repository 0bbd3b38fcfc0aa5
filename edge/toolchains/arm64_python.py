"""CPython for 64-bit Arm from Debian's packages, with all the libraries it needs, for the emulated core.

Runtimes that come as Python wheels (see ``wheels``) run in it as they would on a board.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge.toolchains import debian
from edge.toolchains.environments import Progress

NAME = "arm64-python"
ARCHITECTURE = "arm64"
PACKAGES = ("libpython3.11-stdlib", "libstdc++6", "python3.11-minimal")


def ensure(progress: Progress = debian.print_progress) -> Path:
    """Unpack the interpreter unless it is there already.

    Raises:
        SetupError: not a Debian host, no network, or its Debian has another Python.
    """
    return debian.ensure(NAME, PACKAGES, progress, ARCHITECTURE)


def command(module: str) -> list[str]:
    """What runs a module in the interpreter, which ``ensure`` has unpacked, on any 64-bit Arm processor."""
    root = debian.folder(NAME)
    loader = [str(root / "lib/ld-linux-aarch64.so.1"), "--library-path", debian.library_path(NAME)]
    return [*loader, str(root / "usr/bin/python3.11"), "-m", module]


def environment(*places: Path) -> Mapping[str, str]:
    """The interpreter's variables: where modules are sought, and nothing left to chance or written beside them."""
    return {
        "PYTHONPATH": ":".join(map(str, places)),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
    }
