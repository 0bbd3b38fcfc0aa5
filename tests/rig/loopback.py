"""A board behind a real sshd on 127.0.0.1, whose forced command executes Arm programs on the emulated core.

sshd and the client come from Debian's packages, unpacked and not installed. sshd runs as whoever runs the tests, with a
port, a host key, a client key and a configuration of its own.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.targets import Target
from edge.toolchains import arm64, debian
from rig.board import SHELL, Board, write_executable

TOOLS = "openssh"
PACKAGES = ("openssh-client", "openssh-server")


@dataclass(frozen=True)
class Loopback:
    """The board, how it is reached, and the client to reach it with.

    Attributes:
        address: for ``--device``.
        client: folder with an ``ssh`` that knows the board and has its key; goes first on PATH.
        sshd: the daemon.
    """

    board: Board
    address: str
    client: Path
    sshd: subprocess.Popen[bytes]

    def use_key(self, name: str) -> None:
        """Let the client use one of the keys "board" and "stranger"; the board takes the first only."""
        folder = self.board.folder
        config = folder / "client.conf"
        config.write_text(
            f"IdentityFile {folder / name}\n"
            "IdentitiesOnly yes\n"
            "IdentityAgent none\n"
            f"UserKnownHostsFile {folder / 'known_hosts'}\n"
            "GlobalKnownHostsFile /dev/null\n"
        )


@contextmanager
def loopback(folder: Path, target: Target) -> Iterator[Loopback]:
    """Stand the board up in a folder; sshd is ended on the way out."""
    debian.ensure(TOOLS, PACKAGES)
    board = Board(folder, target)
    client = folder / "client"
    client.mkdir()
    ssh = debian.program(TOOLS, "ssh")
    environment = shlex.join(f"{name}={value}" for name, value in ssh.environment.items())
    # The client's libraries, not those of what it may start: the variable is the client's alone.
    write_executable(client / "ssh", f'#!/bin/sh\nexec env {environment} {ssh.path} -F {folder / "client.conf"} "$@"\n')
    for key in ("host", "board", "stranger"):
        debian.program(TOOLS, "ssh-keygen").run("-q", "-t", "ed25519", "-N", "", "-C", key, "-f", folder / key)
    port = _free_port()
    host_key = (folder / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(host_key)}\n")
    command = f'RIG={folder} exec sh {SHELL} \\"$SSH_ORIGINAL_COMMAND\\"'
    (folder / "authorized_keys").write_text(f'command="{command}",restrict {(folder / "board.pub").read_text()}')
    sshd = _start(folder, port)
    try:
        made = Loopback(board, f"ssh://board@127.0.0.1:{port}", client, sshd)
        made.use_key("board")
        yield made
    finally:
        sshd.terminate()
        sshd.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    library = folder / "ordinary_user.so"
    source = Path(__file__).with_name("ordinary_user.c")
    compiled = arm64.program("gcc").run(
        f"--sysroot={arm64.ensure()}", "-Wall", "-Wextra", "-shared", "-fPIC", "-nostdlib", source, "-o", library
    )
    assert not compiled.returncode, compiled.stderr
    (folder / "sshd.conf").write_text(
        f"ListenAddress 127.0.0.1:{port}\n"
        f"HostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\n"
        "AuthenticationMethods publickey\n"
        "StrictModes no\n"  # the tests' folder may lie below one that others write to
        "PidFile none\n"
        "UsePAM no\n"
    )
    program = debian.program(TOOLS, "sshd")
    environment = {**os.environ, **program.environment, "LD_PRELOAD": str(library)}
    # -r: no exec of itself for each connection, which would forget the variables.
    command = [program.path, "-D", "-e", "-r", "-f", folder / "sshd.conf"]
    with (folder / "sshd.log").open("wb") as log:
        sshd = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    deadline = time.monotonic() + 10
    while sshd.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return sshd
    sshd.kill()
    raise AssertionError(f"sshd did not start: {(folder / 'sshd.log').read_text()}")
