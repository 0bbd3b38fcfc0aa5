"""The near side of worker processes: start one, watch it, end it at its limit, and say what became of it.

Exporters and runtimes crash, hang and are killed for memory. Here that is a result, never the end of the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edge import records
from edge.toolchains import environments
from edge.toolchains.places import HOME, REPOSITORY

POLL_S = 0.05
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
_live: set[int] = set()
_ended = threading.Event()
_live_guard = threading.Lock()


@dataclass(frozen=True)
class Exit:
    """How a worker ended.

    Attributes:
        reason: empty when it ended by itself with status 0.
        seconds: wall time.
        peak_memory_mb: largest resident size of the process.
        status: exit status; a signal's number, negative, where one ended it.
    """

    reason: str
    seconds: float
    peak_memory_mb: int
    status: int = 0


@dataclass(frozen=True)
class Emission:
    """What became of one precision of one format.

    Attributes:
        status: "emitted", "failed" or "skipped".
        reason: empty when emitted.
    """

    status: str
    reason: str = ""
    files: tuple[records.EmittedFile, ...] = ()
    seconds: float = 0.0
    peak_memory_mb: int = 0


@dataclass(frozen=True)
class Library:
    """A shared library in a runner's memory, and the address its own addresses count from."""

    path: str
    base: int


@dataclass(frozen=True)
class Run:
    """What became of running one artifact: outputs (N, ...) by name, or the reason why there are none.

    Attributes:
        runtime: what ran it, with its version; empty if it did not get so far.
        remark: what to know of it though it ran.
        seconds: median of one inference.
        repeats: seconds of each timed inference after the warm-ups, where the device was asked for some.
        conditions: what a board says of itself, in words: kernel, model, governor, temperature before and after.
        libraries: where a native runner had its libraries, itself included.
        executed: which blocks of code ran, where an emulator counted them, see ``edge.cost.counter``.
    """

    outputs: dict[str, np.ndarray] | None
    reason: str = ""
    runtime: str = ""
    seconds: float | None = None
    peak_memory_mb: int = 0
    remark: str = ""
    repeats: tuple[float, ...] = ()
    conditions: dict[str, str] = field(default_factory=dict)
    libraries: tuple[Library, ...] = ()
    executed: Path | None = None


def log_of(path: Path) -> Path:
    """What the worker printed that emitted into a job's folder, or that ran into its results file."""
    return desk(path) / "log.txt"


def desk(path: Path) -> Path:
    """The folder of a run or a worker, beside what it makes: job, events, log."""
    return path.with_name(path.name + ".work")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def surroundings(threads: int) -> dict[str, str]:
    """A worker's environment variables: our package, its own home, a fixed hash seed, the threads it was given."""
    count = str(threads)
    HOME.mkdir(parents=True, exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XDG_", "MPLCONFIG"))}
    return {
        **inherited,
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "HOME": str(HOME),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TVM_NUM_THREADS": count,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }


class Ended(RuntimeError):
    """A worker was asked for after the session ended."""


@contextlib.contextmanager
def session() -> Iterator[None]:
    """On the way out, also by an interruption, every worker is ended. Threads must be joined inside."""
    try:
        yield
    finally:
        end_all()
        _ended.clear()


def end_all() -> None:
    """End every worker, and start no more until the session is over."""
    _ended.set()
    with _live_guard:
        for group in _live:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def _peak_memory_mb(pid: int) -> int:
    """Largest resident size so far; 0 once the process is gone, or where there is no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _watch(process: subprocess.Popen[bytes], limit_s: float, on_poll: Callable[[], bool]) -> tuple[int, int, bool]:
    """Wait for the end; exit status, peak memory in MB, and whether the limit was passed without a sign of life."""
    deadline = time.monotonic() + limit_s
    timed_out = False
    peak = 0
    while True:
        # The kernel's own maximum at the end would count this process's memory too, from before the child's exec.
        peak = max(peak, _peak_memory_mb(process.pid))
        if process.poll() is not None:
            return process.returncode, peak, timed_out
        if not timed_out and time.monotonic() > deadline:
            timed_out = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if on_poll():
            deadline = time.monotonic() + limit_s
        time.sleep(POLL_S)


def execute(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    limit_s: float,
    *,
    log: Path,
    output: Path | None = None,
    source: Path | None = None,
    on_poll: Callable[[], bool] = lambda: False,
) -> Exit:
    """Run a command in a process group of its own until it ends, its limit passes, or the session is over.

    Args:
        command: program and arguments.
        environment: all its variables.
        folder: where it runs.
        limit_s: seconds it may take, or go on after its last sign of life.
        log: gets what it prints, after what is there already.
        output: gets what it prints on stdout, so that the log has only the rest.
        source: what it reads on stdin; nothing by default.
        on_poll: called every now and then while it runs; says whether there was a sign of life.

    Raises:
        Ended: the session is over.
        OSError: there is no such program.
    """
    if _ended.is_set():
        raise Ended
    begin = time.monotonic()
    with ExitStack() as files:
        printed = files.enter_context(log.open("ab"))
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=files.enter_context(source.open("rb")) if source else subprocess.DEVNULL,
            stdout=files.enter_context(output.open("ab")) if output else printed,
            stderr=printed,
            start_new_session=True,
        )
    with _live_guard:
        _live.add(process.pid)
    try:
        code, memory, timed_out = _watch(process, limit_s, on_poll)
    finally:
        with _live_guard:
            _live.discard(process.pid)
    if timed_out:
        reason = f"ended after its limit of {limit_s:g} s without a sign of life"
    elif code < 0:
        reason = f"died with {signal.Signals(-code).name}"
    else:
        reason = f"exited with status {code}" if code else ""
    if reason and (last := _last_line(log)):
        reason += f"; last line: {last}"
    return Exit(reason, round(time.monotonic() - begin, 2), memory, code)


def work(
    job: dict[str, Any],
    environment: str,
    threads: int,
    limit_s: float,
    desk: Path,
    on_event: Callable[[dict[str, Any]], None],
    module: str = "edge.worker",
    variables: Mapping[str, str] = NO_VARIABLES,
) -> tuple[list[dict[str, Any]], Exit]:
    """Run one job in a worker process.

    Args:
        job: JSON-ready.
        environment: name of the Python environment, which must be ready.
        threads: how many the worker may use.
        limit_s: seconds it may go on without an event.
        desk: folder that gets the job, the events, and the log.
        on_event: called with each event as it arrives.
        module: the far side, called with the job's and the events' files.
        variables: of its environment, beside those that every worker has.

    Returns:
        Its events, and how it ended.
    """
    desk.mkdir(parents=True, exist_ok=True)
    job_file, events_file, log = desk / "job.json", desk / "events.jsonl", desk / "log.txt"
    job_file.write_text(json.dumps(job), encoding="utf-8")
    events_file.write_text("", encoding="utf-8")
    events: list[dict[str, Any]] = []

    def collect() -> bool:
        known = len(events)
        complete = events_file.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        for line in complete[known:]:
            events.append(json.loads(line))
            on_event(events[-1])
        return len(events) > known

    command = [str(environments.python(environment)), "-m", module, str(job_file), str(events_file)]
    end = execute(command, {**surroundings(threads), **variables}, desk, limit_s, log=log, on_poll=collect)
    collect()
    return events, end


def _silent(event: dict[str, Any]) -> None:
    pass


def emit(
    job: records.EmitJob,
    environment: str,
    limit_s: float,
    on_event: Callable[[dict[str, Any]], None] = _silent,
) -> dict[str, Emission]:
    """Emit the job's precisions; what the worker died on is failed, and the rest gets a new worker.

    Args:
        job: what to emit; ``job.folder`` receives the files.
        environment: name of the Python environment, which must be ready.
        limit_s: seconds a worker may go on without an event.
        on_event: called with each event as it arrives.

    Returns:
        What became of each precision.
    """
    results: dict[str, Emission] = {}
    remaining = job.precisions
    while remaining:
        part = {"kind": "emit", **records.to_json(replace(job, precisions=remaining))}
        events, end = work(part, environment, job.threads, limit_s, desk(job.folder), on_event)
        for event in events:
            if event["event"] == "emitted":
                files = tuple(records.emitted_from_json(f) for f in event["files"])
                results[event["precision"]] = Emission("emitted", "", files, event["seconds"], end.peak_memory_mb)
            elif event["event"] in ("failed", "skipped"):
                emission = Emission(event["event"], event["reason"], peak_memory_mb=end.peak_memory_mb)
                results[event["precision"]] = emission
        remaining = tuple(p for p in remaining if p not in results)
        if remaining:
            reason = end.reason or "the worker ended without a result"
            results[remaining[0]] = Emission("failed", reason, (), end.seconds, end.peak_memory_mb)
            # If it died before it began a precision, the others share its fate: trying again would die the same way.
            if not any(event["event"] == "started" for event in events):
                return {**dict.fromkeys(remaining, results[remaining[0]]), **results}
            remaining = remaining[1:]
    return results


def run(
    job: records.RunJob,
    environment: str = "base",
    limit_s: float = 900,
    variables: Mapping[str, str] = NO_VARIABLES,
) -> Run:
    """Run one artifact on the check samples in a worker.

    Args:
        job: what to run.
        environment: name of the Python environment, which must be ready.
        limit_s: seconds the worker may take.
        variables: of its environment, beside those that every worker has.

    Returns:
        Its outputs, or the reason why there are none.
    """
    data = {"kind": "run", **records.to_json(job)}
    events, end = work(data, environment, job.threads, limit_s, desk(job.results), _silent, variables=variables)
    found = {event["event"]: event for event in events}
    runtime = found["runtime"]["title"] if "runtime" in found else ""
    if "ran" in found and not end.reason:
        with np.load(job.results) as arrays:
            return Run(dict(arrays), "", runtime, found["ran"]["seconds"], end.peak_memory_mb)
    reason = found["failed"]["reason"] if "failed" in found else end.reason or "the worker ended without a result"
    return Run(None, reason, runtime, None, end.peak_memory_mb)
