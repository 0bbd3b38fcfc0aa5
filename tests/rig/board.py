"""What the loopback board and the adb stand-in share: a folder as the board's disk, the emulated core, and faults."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from edge.devices import emulated
from edge.targets import Target

SHELL = Path(__file__).with_name("board.sh")

UNAME = """#!/bin/sh
case $1 in -m) echo aarch64 ;; *) echo Linux 6.1.0-rig aarch64 ;; esac
"""


class Board:
    """A board made of a folder on this host.

    Attributes:
        folder: of the rig.
        disk: where the board's files lie, which must be empty afterwards.
    """

    def __init__(self, folder: Path, target: Target) -> None:
        emulated.Emulated(target).ready(lambda line: None)
        self.folder, self.disk = folder, folder / "disk"
        self._target = target
        self.disk.mkdir(parents=True)
        self.mend()

    def mend(self) -> None:
        """Take every fault away."""
        shutil.rmtree(self.folder / "programs", ignore_errors=True)
        (self.folder / "programs").mkdir()
        self.program("uname", UNAME)
        self.fault("")
        self.core('exec $EMULATED "$@"')

    def fault(self, script: str) -> None:
        """Shell lines that the board executes before each line of the client's, which is in $LINE."""
        (self.folder / "faults").write_text(script + "\n")

    def program(self, name: str, script: str) -> None:
        """Put a program before the host's own of that name."""
        write_executable(self.folder / "programs" / name, script)

    def core(self, script: str) -> None:
        """What runs in place of an Arm program: its line is $@, and $EMULATED goes before it."""
        environment = [f"{name}={value}" for name, value in emulated.environment().items()]
        prefix = shlex.join(["env", "-i", *environment, *emulated.command(self._target)])
        write_executable(self.folder / "core", f"#!/bin/sh\nEMULATED={shlex.quote(prefix)}\n{script}\n")

    def leftovers(self) -> list[str]:
        """Files on the board's disk, and processes that work there."""
        found = [str(path) for path in self.disk.rglob("*")]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                place = (process / "cwd").readlink()
            except OSError:
                continue
            if place.is_relative_to(self.disk):
                found.append(f"process {process.name} in {place}")
        return found


def write_executable(file: Path, text: str) -> None:
    # By a rename: a process may be executing the old one.
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text)
    partial.chmod(0o755)
    partial.rename(file)
