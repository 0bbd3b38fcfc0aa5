"""Boards that wait at TVM's RPC tracker: time on the real core, on as many boards at once as there are.

Somebody runs the tracker (``python -m tvm.exec.rpc_tracker``) and on each board a server with the same key
(``python -m tvm.exec.rpc_server --tracker host:port --key key``). A key stands for one kind of device.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from edge.errors import SetupError, UsageError
from edge.targets import Target
from edge.tuning.compiled import Kernel
from edge.tuning.runners import Cost, Method, compiler
from edge.tuning.workers import Fault, Worker

ADDRESS = re.compile(r"rpc://(?P<host>[^:/]+):(?P<port>\d+)/(?P<key>.+)")
CONNECT_S = 5
LIMIT_S = 60
"""For one kernel, waiting for a board included."""
TRIES = 3
"""A kernel whose board died gets others; one that takes so many boards with it is at fault itself."""


class Boards:
    """Time on boards, one thread each; see ``edge.tuning.remote``.

    Args:
        address: ``rpc://host:port/key``.
        target: that the boards are.
    """

    suffix = ".so"
    close = 0.0

    def __init__(self, address: str, target: Target) -> None:
        found = ADDRESS.fullmatch(address)
        if found is None:
            raise UsageError(
                f"{address} is no address of a tracker",
                stage="tune",
                target=target.name,
                next_step="write rpc://host:port/key, such as rpc://192.168.0.2:9190/rpi4",
            )
        self._tracker = {"host": found["host"], "port": int(found["port"]), "key": found["key"]}
        self.method = Method("rpc", f"{found['key']} over RPC", "seconds", compiler())
        try:  # TVM itself would try for minutes
            socket.create_connection((found["host"], int(found["port"])), CONNECT_S).close()
        except OSError as error:
            raise _unreachable(address, target, f"no tracker answers: {error.strerror or error}") from None
        first = Worker("edge.tuning.remote")
        try:
            boards = int(first.ask({"tracker": self._tracker}, LIMIT_S))
        except Fault as fault:
            first.close()
            raise _unreachable(address, target, str(fault)) from None
        if not boards:
            first.close()
            raise _unreachable(address, target, f"no board of the key {found['key']} waits there")
        self._workers = [first, *(Worker("edge.tuning.remote") for _ in range(boards - 1))]
        self._pool = ThreadPoolExecutor(boards)
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def __len__(self) -> int:
        """How many boards waited at the start."""
        return len(self._workers)

    def costs(self, kernels: Sequence[Kernel]) -> list[Cost]:
        """See ``Runner``."""
        return list(self._pool.map(self._cost, kernels))

    def _cost(self, kernel: Kernel) -> Cost:
        worker = self._idle.get()
        fault = Fault("never tried")
        try:
            for _ in range(TRIES):
                try:
                    return float(worker.ask({"tracker": self._tracker, **kernel.to_json()}, LIMIT_S))
                except Fault as error:
                    fault = error
            return fault
        finally:
            self._idle.put(worker)

    def traffic(self, kernel: Kernel) -> int:
        """See ``Runner``."""
        return 0

    def end(self) -> None:
        """See ``Runner``."""
        self._pool.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()


def _unreachable(address: str, target: Target, reason: str) -> SetupError:
    return SetupError(
        f"no board can be had at {address}: {reason}",
        stage="tune",
        target=target.name,
        next_step="start `python -m tvm.exec.rpc_tracker` here and `python -m tvm.exec.rpc_server` on each board",
    )
