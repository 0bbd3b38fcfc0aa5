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

    Returns:
        The root of its system.

    Raises:
        SetupError: not a Debian host, no network, or its Debian has another Python.
    """
    return debian.ensure(NAME, PACKAGES, progress, ARCHITECTURE)


def command(root: str, module: str) -> list[str]:
    """What runs a module in the interpreter on a 64-bit Arm processor.

    Args:
        root: where the folder that ``ensure`` gave is for the processor.
        module: by its full name.
    """
    libraries = f"{root}/usr/lib/aarch64-linux-gnu"
    return [
        f"{root}/lib/ld-linux-aarch64.so.1",
        "--library-path",
        libraries,
        f"{root}/usr/bin/python3.11",
        "-m",
        module,
    ]


def environment(*places: str) -> Mapping[str, str]:
    """The interpreter's variables: where modules are sought, and nothing left to chance or written beside them.

    Bytecode that the host has left beside some sources and not yet beside others is not read either: it would move the
    heap, and with it what is counted.
    """
    return {
        "PYTHONPATH": ":".join(places),
        "PYTHONSAFEPATH": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPYCACHEPREFIX": "/no-bytecode",
        "PYTHONNOUSERSITE": "1",
    }
