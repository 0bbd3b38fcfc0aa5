"""The target's core, emulated by QEMU's user mode: always a named core, always one CPU, the same addresses every time.

The emulated core executes the target's own instructions: what it lacks is an illegal instruction, and the results have
the bits that the target's arithmetic gives. Its speed says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge.devices import core_files
from edge.fingerprint import text_digest
from edge.targets import Target
from edge.toolchains import arm64
from edge.toolchains.environments import exclusive
from edge.toolchains.places import PRIVATE

ROOTS = PRIVATE / "emulated"
GUEST_MEMORY = "0x100000000"
"""4 GiB, reserved at the start: without it the host's randomised layout would decide the guest's addresses."""


def root(target: Target) -> Path:
    """The folder QEMU gets as ``-L``: the core's files in ``/proc`` and ``/sys``, made once for each profile."""
    assert target.emulated is not None
    parts = (target.core.model_dump_json(), target.caches.model_dump_json(), target.emulated.model_dump_json())
    folder = ROOTS / f"{target.name}-{text_digest(parts)[:16]}"
    if not folder.is_dir():
        with exclusive(ROOTS / f".{target.name}.lock"):
            partial = folder.with_suffix(".partial")
            core_files.write(target, partial)
            partial.rename(folder)
    return folder


def command(target: Target, *options: str, files: Path | None = None) -> list[str]:
    """What goes before a program of the target's to run it on the emulated core.

    Args:
        target: has an ``[emulated]`` table.
        options: more of QEMU's own, such as a plugin.
        files: another ``-L`` folder that holds the core's files beside a whole system.
    """
    assert target.emulated is not None
    qemu = arm64.program("qemu-aarch64")
    place = files or root(target)
    return [str(qemu.path), "-cpu", target.emulated.cpu, "-L", str(place), "-R", GUEST_MEMORY, "-seed", "0", *options]


def environment() -> Mapping[str, str]:
    """All variables of an emulated run. QEMU hands them to the program, where their size would shift the stack."""
    return {"LD_LIBRARY_PATH": arm64.program("qemu-aarch64").environment["LD_LIBRARY_PATH"]}
