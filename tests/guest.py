"""Small programs in assembly for the emulated core, so that a test knows every instruction they execute."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from edge import targets
from edge.cost import counter
from edge.cost.counter import Profile
from edge.cost.places import Places
from edge.devices import emulated
from edge.processes import Library
from edge.targets.profile import Caches
from edge.toolchains import arm64

PROGRAM = """
    .arch armv8.2-a+crypto+dotprod+fp16+lse
    .global _start
_start:
    adrp x2, data
{before}
    hint #112
{measured}
    hint #113
    mov x0, #0
    mov x8, #93 // exit
    svc #0
{functions}
    .bss
    .balign 1 << 20
data:
    .space 2 << 20
"""


@dataclass(frozen=True)
class Counted:
    """A program's profile, and where its code lies."""

    program: Path
    profile: Profile

    @property
    def places(self) -> Places:
        return Places([Library(self.program.name, 0)], self.program.parent)


def function(name: str, body: str) -> str:
    """A function that a program may call."""
    return f"    .type {name}, %function\n{name}:\n{body}\n    ret\n    .size {name}, . - {name}"


def assemble(folder: Path, measured: str, before: str = "", functions: str = "", program: str = PROGRAM) -> Path:
    """Make a program; ``data`` is 2 MiB of zeros, aligned to one, and its address is in x2."""
    folder.mkdir(parents=True, exist_ok=True)
    source, binary = folder / "program.s", folder / "program"
    source.write_text(program.format(before=before, measured=measured, functions=functions))
    compiler = arm64.program("aarch64-linux-gnu-gcc")
    done = compiler.run(f"--sysroot={arm64.ensure()}", "-nostdlib", "-static", "-o", binary, source)
    assert done.returncode == 0, done.stderr
    return binary


def run(program: Path, target: str, caches: Caches | None = None) -> Path:
    """Run it on the emulated core; the file that the counter writes."""
    written = program.with_name("executed.txt")
    written.unlink(missing_ok=True)
    profile = targets.load(target)
    plugin = counter.options(counter.ensure(), written, caches)
    line = [*emulated.command(profile, *plugin), f"./{program.name}"]
    subprocess.run(line, cwd=program.parent, env=dict(emulated.environment()), check=True, timeout=60)
    return written


def count(
    folder: Path,
    measured: str,
    *,
    before: str = "",
    functions: str = "",
    target: str = "cortex-a72",
    caches: Caches | None = None,
) -> Counted:
    """What a program executes between the markers, which stand around ``measured``."""
    program = assemble(folder, measured, before, functions)
    return Counted(program, counter.read(run(program, target, caches)))
