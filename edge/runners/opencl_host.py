"""Builds the OpenCL host (``opencl/``) for the machine that exports."""

from __future__ import annotations

from pathlib import Path

from edge.fingerprint import file_digest, text_digest
from edge.toolchains import debian, pocl
from edge.toolchains.environments import Progress
from edge.toolchains.once import made_once
from edge.toolchains.places import PRIVATE

FOLDER = PRIVATE / "opencl-host"
SOURCES = Path(__file__).resolve().parent / "opencl"
OPTIONS = ("-std=c99", "-pedantic", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wl,--build-id=none")


def ensure(progress: Progress = debian.print_progress) -> Path:
    """The program; it is compiled unless it is there already.

    Raises:
        SetupError: the compiler cannot be had, or does not compile it.
    """
    pocl.ensure(progress)
    parts = (file_digest(SOURCES), *OPTIONS, repr(debian.versions(pocl.NAME)))
    program = FOLDER / f"run-{text_digest(parts)[:16]}"
    if made_once(program, lambda partial: pocl.compile_program(sorted(SOURCES.glob("*.c")), OPTIONS, partial)):
        progress("OpenCL host: compiled")
    return program
