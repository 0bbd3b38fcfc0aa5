"""Phones over adb, by this host's own Android Debug Bridge: push, shell, pull.

Never checked on a phone. The tests run the same commands against a stand-in for ``adb`` that executes them in a folder
here on the emulated core, and take the messages for missing phones from the real client.

Why the runners should run there, though they are built for glibc and not for Android's own C library: a bundle brings
its loader and every library down to the C library, and is started through that loader by its path, so that nothing of
Android's user space is used, only Linux system calls. ``adb shell`` is no app: it has no system call filter, and may
execute files under its own folder, where native tests are run as well. What is not known is whether a vendor's kernel
or its access rules forbid something on the way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edge.devices.board import Effort, Remote
from edge.errors import UsageError
from edge.processes import Exit

SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
LOST = re.compile(r"(adb: )?error: (.*: )?(device .*(not found|offline|unauthorized)|no devices|closed|protocol fault)")


class Phone(Remote):
    """A phone that ``adb devices`` lists."""

    def __init__(self, serial: str, effort: Effort | None = None) -> None:
        """Nothing is connected before ``ready``.

        Args:
            serial: as ``adb devices`` shows it.
            effort: repeats and limits.

        Raises:
            UsageError: no serial can look like this.
        """
        if not SERIAL.fullmatch(serial):
            raise UsageError(
                f"{serial!r} is no phone's serial",
                stage="verify",
                next_step="write adb:SERIAL; `adb devices` lists them",
            )
        self._serial = serial
        super().__init__(f"adb:{serial}", "/data/local/tmp", effort or Effort())

    def _adb(self, *arguments: str) -> list[str]:
        return ["adb", "-s", self._serial, *arguments]

    def _shell(self, script: str) -> list[str]:
        return self._adb("shell", "-T", script)

    def _send(self, path: Path, folder: str, desk: Path) -> None:
        trouble = f"{path.name} could not be written there"
        self._step(trouble, self._adb("push", str(path), f"{folder}/"), desk, self._effort.transfer_s)

    def _fetch(self, file: str, local: Path, desk: Path) -> None:
        trouble = f"{local.name} could not be fetched"
        self._step(trouble, self._adb("pull", file, str(local)), desk, self._effort.transfer_s)

    def _is_lost(self, end: Exit, said: Sequence[str]) -> bool:
        return end.status > 0 and any(map(LOST.match, said))
