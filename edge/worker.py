"""The far side of a worker process: ``python -m edge.worker JOB.json EVENTS.jsonl``.

Reads one job, calls the backend or the runtime it names, and appends one JSON line per result to the events file; what
the tools print goes wherever the parent pointed stdout. Runs in environments that hold one exporter and nothing of
ours, so only the standard library and numpy are imported here.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import statistics
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from edge import layouts, memory, records
from edge.errors import SetupError


def _outcome(error: Exception) -> str:
    """A tool that cannot be had is a skip; everything else is a failure."""
    return "skipped" if isinstance(error, SetupError) else "failed"


def _reason(error: Exception) -> str:
    """Type and first line of an error: enough for a table; the traceback is in the log."""
    if isinstance(error, SetupError):
        return error.message
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


class Events:
    """The results so far, on disk at once: what was reported stays reported if the process dies next."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def report(self, **event: Any) -> None:
        """Append one event and flush it."""
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class Steps(logging.Handler):
    """Reports what our own modules log while a precision is emitted: some take minutes."""

    def __init__(self, events: Events) -> None:
        super().__init__(logging.INFO)
        self._events = events
        self.precision = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Report one line."""
        self._events.report(event="step", precision=self.precision, text=record.getMessage())


def emit(job: records.EmitJob, events: Events) -> None:
    """Emit every precision in turn; one that raises is reported as failed and the next is tried.

    What all share is counted in the first one's seconds.
    """
    steps = Steps(events)
    log = logging.getLogger("edge")
    log.setLevel(logging.INFO)
    log.addHandler(steps)
    begin = time.monotonic()
    backend = importlib.import_module(job.backend)
    try:
        prepared = backend.prepare(job)
    except Exception as error:
        traceback.print_exc()
        for precision in job.precisions:
            events.report(event=_outcome(error), precision=precision, reason=_reason(error))
        return
    for precision in job.precisions:
        memory.give_back()
        events.report(event="started", precision=precision)
        steps.precision = precision
        try:
            files = backend.emit(job, prepared, precision)
        except Exception as error:
            traceback.print_exc()
            events.report(event=_outcome(error), precision=precision, reason=_reason(error))
        else:
            events.report(
                event="emitted",
                precision=precision,
                files=records.to_json(files),
                seconds=round(time.monotonic() - begin, 2),
            )
        begin = time.monotonic()


def run_all(job: records.RunJob) -> tuple[dict[str, np.ndarray], float]:
    """Load the artifact and run every check sample, one at a time.

    Returns:
        The outputs by name, shape (N, ...) in the pipeline's layout, and the median seconds of one inference.
    """
    runtime = importlib.import_module(f"edge.runtimes.{job.runtime}")
    infer = runtime.load(job.artifact, job.inputs, job.outputs, job.threads)
    with np.load(job.check_inputs) as samples:
        images = {p.name: samples[p.name] for p in job.inputs}
    rows: dict[str, list[np.ndarray]] = {p.name: [] for p in job.outputs}
    seconds = []
    for index in range(len(next(iter(images.values())))):
        feed = {p.name: layouts.to_artifact(images[p.name][index : index + 1], p) for p in job.inputs}
        begin = time.perf_counter()
        outputs = infer(feed)
        seconds.append(time.perf_counter() - begin)
        for port in job.outputs:
            rows[port.name].append(layouts.from_artifact(np.asarray(outputs[port.name]), port))
    return {name: np.concatenate(parts) for name, parts in rows.items()}, statistics.median(seconds)


def run(job: records.RunJob, events: Events) -> None:
    """Run the artifact and report how long it took; the outputs are in ``job.results``."""
    events.report(event="runtime", title=importlib.import_module(f"edge.runtimes.{job.runtime}").title())
    try:
        outputs, seconds = run_all(job)
        np.savez(job.results, allow_pickle=False, **outputs)
    except Exception as error:
        traceback.print_exc()
        events.report(event="failed", reason=_reason(error))
    else:
        events.report(event="ran", seconds=round(seconds, 6))


def end_with_parent() -> None:
    """Leave when the parent is gone: a killed run must not leave exporters working behind it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> None:
    """Entry point: job file, events file."""
    end_with_parent()
    job_file, events_file = map(Path, arguments)
    data = json.loads(job_file.read_text(encoding="utf-8"))
    events = Events(events_file)
    if data.pop("kind") == "emit":
        emit(records.emit_job_from_json(data), events)
    else:
        run(records.run_job_from_json(data), events)


if __name__ == "__main__":
    main(sys.argv[1:])
