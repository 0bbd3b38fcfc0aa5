"""Workers that stay: one request a line, one answer a line, so that what they import is imported once.

A request may kill its worker, or never come back. Then that request has a fault, and the next one gets a new worker.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any, cast

from edge import processes
from edge.toolchains import environments

START_S = 120
"""What a worker's imports may take on a busy machine, on top of its first request's limit."""


class Fault(RuntimeError):
    """A request that has no answer, and why."""


class Worker:
    """The near side, started at once. Not for two threads at the same time.

    Args:
        module: its far side, which calls ``serve``.
        threads: how many the worker may use.
    """

    def __init__(self, module: str, threads: int = 1) -> None:
        self._module, self._threads = module, threads
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the worker
        self._process: subprocess.Popen[bytes] | None = self._start()
        self._fresh = True

    def ask(self, request: Any, limit_s: float) -> Any:
        """The answer to a request.

        Args:
            request: JSON-ready.
            limit_s: seconds it may take.

        Raises:
            Fault: the far side raised, died, or was ended at its limit.
        """
        if self._process is None:
            self._process, self._fresh = self._start(), True
        process = self._process
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = _read_line(process.stdout.fileno(), limit_s + START_S * self._fresh)
        except (BrokenPipeError, EOFError):
            raise Fault(f"the worker {self._end()}") from None
        except TimeoutError:
            self._end()
            raise Fault(f"no answer within {limit_s:g} s") from None
        self._fresh = False
        answer = json.loads(line)
        if "fault" in answer:
            raise Fault(answer["fault"])
        return answer["answer"]

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._end()
        self._log.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._log.seek(0)
        self._log.truncate()
        return subprocess.Popen(
            [str(environments.python("base")), "-m", self._module],
            env=processes.surroundings(self._threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def _end(self) -> str:
        """End the process; how it had ended before, in words."""
        assert self._process is not None
        process, self._process = self._process, None
        with contextlib.suppress(BrokenPipeError):
            process.communicate(timeout=0.5) if process.poll() is not None else process.kill()
        status = process.wait()
        if status < 0:
            return f"died with {signal.Signals(-status).name}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines() or ["nothing was printed"]
        return f"exited with status {status}; last line: {lines[-1][:200]}"


def _read_line(descriptor: int, limit_s: float) -> bytes:
    deadline = time.monotonic() + limit_s
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            raise EOFError
        line += piece
    return line


def serve(answer: Callable[[Any], Any]) -> None:
    """The far side: answer requests, which TVM has a part in, until stdin ends."""
    cast(Any, sys.modules)["torch"] = None  # TVM imports it where it can, which takes seconds, and needs it for nothing
    importlib.import_module("tvm")
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what else is printed is no answer
    for line in sys.stdin:
        try:
            result = {"answer": answer(json.loads(line))}
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            result = {"fault": f"{type(error).__name__}: {lines[-1]}"[:300]}
        answers.write(json.dumps(result) + "\n")
        answers.flush()
