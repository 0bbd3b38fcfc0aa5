"""Boards at TVM's RPC tracker, on loopback: several at once, and one that dies is dropped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge import targets
from edge.errors import SetupError, UsageError
from edge.kernels.core import Core
from edge.kernels.depthwise import Depthwise, DepthwiseTemplate
from edge.tuning.boards import Boards
from edge.tuning.compiled import Kernel, compile_kernel

pytestmark = pytest.mark.slow

HOST = targets.load("x86-64")
PROBLEM = Depthwise(9, 9, 8, (3, 3))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"tvm.exec.{module}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """With the children, which TVM leaves behind."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
    process.wait()


@pytest.fixture
def farm() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a tracker, and the servers of two boards, which are this host."""
    port = free_port()
    with ExitStack() as started:
        tracker = start("rpc_tracker", "--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1))
        started.callback(end, tracker)
        wait_for(lambda: connects(port))
        servers = []
        for _ in range(2):
            own = str(free_port())
            place = ("--host", "127.0.0.1", "--port", own, "--port-end", str(int(own) + 1))
            servers.append(start("rpc_server", *place, "--tracker", f"127.0.0.1:{port}", "--key", "loopback"))
            started.callback(end, servers[-1])
        yield f"rpc://127.0.0.1:{port}/loopback", servers


def connects(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition, seconds: float = 60) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def boards_at(address: str, count: int) -> Boards:
    """The runner, once so many boards wait."""
    deadline = time.monotonic() + 60
    while True:
        try:
            boards = Boards(address, HOST)
        except SetupError:
            assert time.monotonic() < deadline
            continue
        if len(boards) == count:
            return boards
        boards.end()
        assert time.monotonic() < deadline


def kernels(folder: Path) -> list[Kernel]:
    template, core = DepthwiseTemplate(), Core.of(HOST)
    made = []
    for index, choice in enumerate(template.space(PROBLEM, core)[:4]):
        file = folder / f"{index}.so"
        made.append(compile_kernel(template.kernel(PROBLEM, choice, core), HOST, file))
    return made


def test_every_kernel_is_timed_though_a_board_dies(farm: tuple[str, list], tmp_path: Path) -> None:
    address, servers = farm
    boards = boards_at(address, 2)
    try:
        candidates = kernels(tmp_path)
        assert all(isinstance(cost, float) and 1e-8 < cost < 1e-3 for cost in boards.costs(candidates))
        end(servers[0])
        assert all(isinstance(cost, float) and 1e-8 < cost < 1e-3 for cost in boards.costs(candidates))
    finally:
        boards.end()


def test_a_tracker_without_boards_and_an_address_without_a_key_are_errors(farm: tuple[str, list]) -> None:
    address, _ = farm
    with pytest.raises(SetupError, match="no board of the key other waits there"):
        Boards(address.replace("loopback", "other"), HOST)
    with pytest.raises(UsageError, match="is no address of a tracker"):
        Boards("rpc://127.0.0.1:9190", HOST)
