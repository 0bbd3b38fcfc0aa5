"""The tools for 64-bit Arm targets, from Debian's packages: cross compiler, emulator, LLVM's core models."""

from __future__ import annotations

from pathlib import Path

from edge.toolchains import debian
from edge.toolchains.debian import Program
from edge.toolchains.environments import Progress

NAME = "arm64"
PACKAGES = (
    "g++-aarch64-linux-gnu",  # and the C library that programs are linked with and run against
    "gcc",  # for what runs inside the emulator, on the host
    "libc6-dev",
    "llvm-19",  # llvm-mc disassembles, llvm-mca models the pipeline
    "qemu-user",
)


def ensure(progress: Progress = debian.print_progress) -> Path:
    """Unpack the tools unless they are there already.

    Returns:
        The folder, which is also the compilers' ``--sysroot``.

    Raises:
        SetupError: not a Debian host, no network, or no such package.
    """
    return debian.ensure(NAME, PACKAGES, progress)


def program(executable: str) -> Program:
    """One of the tools, which ``ensure`` has unpacked."""
    return debian.program(NAME, executable)


def libraries() -> Path:
    """The target's C and C++ libraries and its loader."""
    return debian.folder(NAME) / "usr/aarch64-linux-gnu/lib"
