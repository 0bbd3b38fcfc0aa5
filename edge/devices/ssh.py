"""Boards over ssh, by this host's own OpenSSH client: keys, hosts, ports and jumps are the user's configuration.

Each step is a call of its own; nothing waits in the background. Nobody can be asked for a password here, so a key must
be set up, and the board must be a known host, or one that the configuration trusts.
"""

from __future__ import annotations

import re
import shlex
import tarfile
from collections.abc import Sequence
from pathlib import Path

from edge.devices.board import Effort, Remote
from edge.errors import UsageError
from edge.processes import Exit

OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "LogLevel": "ERROR",
}
ADDRESS = re.compile(r"ssh://([^@/\s]+@)?([^@:/\s\[\]]+|\[[0-9A-Fa-f:]+\])(:\d+)?/?")
SSH_FAILED = 255


class Board(Remote):
    """A board that the system's ``ssh`` reaches."""

    def __init__(self, address: str, effort: Effort | None = None) -> None:
        """Nothing is connected before ``ready``.

        Args:
            address: ``ssh://[user@]host[:port]``; the host may be a name from the user's ssh configuration.
            effort: repeats and limits.

        Raises:
            UsageError: another address.
        """
        if not ADDRESS.fullmatch(address):
            raise UsageError(
                f"{address!r} is no address of a board",
                stage="verify",
                next_step="write ssh://user@host or ssh://user@host:port",
            )
        super().__init__(address, "${TMPDIR:-/tmp}", effort or Effort())

    def _shell(self, script: str) -> list[str]:
        options = [part for name, value in OPTIONS.items() for part in ("-o", f"{name}={value}")]
        return ["ssh", "-T", *options, "--", self.name.removesuffix("/"), script]

    def _send(self, path: Path, folder: str, desk: Path) -> None:
        archive = desk / "sending.tar"
        with tarfile.open(archive, "w", dereference=True) as tar:
            tar.add(path, path.name, filter=_plain)
        script = f"tar -x -f - -C {shlex.quote(folder)}"
        trouble = f"{path.name} could not be written there"
        self._step(trouble, self._shell(script), desk, self._effort.transfer_s, source=archive)
        archive.unlink()

    def _fetch(self, file: str, local: Path, desk: Path) -> None:
        trouble = f"{local.name} could not be fetched"
        self._step(trouble, self._shell(f"cat {shlex.quote(file)}"), desk, self._effort.transfer_s, output=local)

    def _is_lost(self, end: Exit, said: Sequence[str]) -> bool:
        return end.status == SSH_FAILED


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without this host's users, and as old as the epoch: a board without a clock would warn of the future."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
