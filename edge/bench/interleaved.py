"""Time several runtimes in one process, in turn: ``python -m edge.bench.interleaved JOB.json EVENTS.jsonl``.

All run on one core of the machine, which the process keeps to. In every round each runtime has one turn, in an order
that is drawn anew; in its turn it runs a few times to find its data in the caches again, and then against the clocks.
So whatever the machine does to one runtime it does to its rivals in the same seconds. What counts is the processor time
of the whole process, which other work on the machine does not lengthen; nothing else goes on in it.

Only the standard library, numpy and the runtimes are there.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge import layouts
from edge.bench import instructions
from edge.records import Port, ports_from_json
from edge.runtimes import Infer
from edge.worker import Events, end_with_parent


@dataclass(frozen=True)
class Contender:
    """One artifact to be timed.

    Attributes:
        runtime: module in ``edge.runtimes``.
        artifact: the saved file.
        inputs, outputs: its ports, as emitted.
    """

    runtime: str
    artifact: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class TimeJob:
    """Time several artifacts on one sample.

    Attributes:
        contenders: each passed its check by itself.
        check_inputs: .npz with one array (N, C, H, W) per input name; the first sample is used.
        results: .npz to write: ``wall`` and ``processor`` of the shape (contenders, rounds, repeats) in seconds, and
            what each contender computed when it was last timed, as ``<index>:<output>``.
        turn: file that says whose turn it is, for who finds the process dead.
        seed: of the order in the rounds.
        warmups: of each runtime, before the first round.
        settling: runs of each turn before those that are timed.
        repeats: timed runs of a turn.
        rounds: least and most; between them the budget ends it.
        budget_s: seconds for all rounds.
        loading_limit_s, limit_s: for loading one artifact and warming up, and for one turn; then the process dies with
            SIGALRM.
        sampling_s: for each contender afterwards, to see its instructions.
    """

    contenders: tuple[Contender, ...]
    check_inputs: Path
    results: Path
    turn: Path
    seed: int
    warmups: int
    settling: int
    repeats: int
    rounds: tuple[int, int]
    budget_s: float
    loading_limit_s: int
    limit_s: int
    sampling_s: float


def from_json(data: dict[str, Any]) -> TimeJob:
    """The inverse of ``edge.records.to_json``."""
    contenders = tuple(
        Contender(
            **{
                **contender,
                "artifact": Path(contender["artifact"]),
                "inputs": ports_from_json(contender["inputs"]),
                "outputs": ports_from_json(contender["outputs"]),
            }
        )
        for contender in data["contenders"]
    )
    paths = {name: Path(data[name]) for name in ("check_inputs", "results", "turn")}
    return TimeJob(**{**data, **paths, "contenders": contenders, "rounds": tuple(data["rounds"])})


@dataclass(frozen=True)
class _Loaded:
    """An artifact ready to run on its sample."""

    infer: Infer
    feed: dict[str, np.ndarray]


class _Turn:
    """Whose turn it is, on disk, with an alarm set: a runtime that hangs takes the process with it."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def begins(self, index: int, limit_s: int) -> None:
        os.pwrite(self._file, f"{index:<4}".encode(), 0)
        signal.alarm(limit_s)

    def is_over(self) -> None:
        signal.alarm(0)


def run(job: TimeJob, report: Callable[..., None]) -> None:
    """Load everything, time it in turns, and write the times and the outputs.

    Args:
        job: what to time, and how.
        report: takes an event; one for each artifact that is loaded, and one for each whose instructions were seen.
    """
    # One core, so that nothing is moved while it runs; the last, since the first serves most interrupts.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    turn = _Turn(job.turn)
    loaded = []
    for index, contender in enumerate(job.contenders):
        turn.begins(index, job.loading_limit_s)
        loaded.append(_load(contender, job))
        turn.is_over()
        report(event="loaded", contender=index)
    wall, processor, outputs = _rounds(job, loaded, turn)
    named = {f"{index}:{name}": array for index, arrays in enumerate(outputs) for name, array in arrays.items()}
    np.savez(job.results, allow_pickle=False, wall=wall, processor=processor, **named)
    report(event="timed", rounds=wall.shape[1])
    for index, ready in enumerate(loaded):
        turn.begins(index, job.limit_s)
        seen = instructions.sampled(partial(ready.infer, ready.feed), job.sampling_s)
        turn.is_over()
        report(event="sampled", contender=index, widths=seen)


def _load(contender: Contender, job: TimeJob) -> _Loaded:
    runtime = importlib.import_module(f"edge.runtimes.{contender.runtime}")
    infer = runtime.load(contender.artifact, contender.inputs, contender.outputs, 1)
    with np.load(job.check_inputs) as samples:
        feed = {port.name: layouts.to_artifact(samples[port.name][:1], port) for port in contender.inputs}
    for _ in range(job.warmups):
        infer(feed)
    return _Loaded(infer, feed)


def _rounds(
    job: TimeJob, loaded: list[_Loaded], turn: _Turn
) -> tuple[np.ndarray, np.ndarray, list[dict[str, np.ndarray]]]:
    """Wall and processor time (contenders, rounds, repeats) in seconds, and each contender's last outputs."""
    least, most = job.rounds
    times = np.zeros((2, len(loaded), most, job.repeats))
    outputs: list[dict[str, np.ndarray]] = [{} for _ in loaded]
    draw = random.Random(job.seed)
    done = 0
    end = time.monotonic() + job.budget_s
    gc.collect()
    gc.disable()
    while done < least or (done < most and time.monotonic() < end):
        for index in draw.sample(range(len(loaded)), len(loaded)):
            infer, feed = loaded[index].infer, loaded[index].feed
            turn.begins(index, job.limit_s)
            for _ in range(job.settling):
                infer(feed)
            for repeat in range(job.repeats):
                wall, processor = time.perf_counter(), time.process_time()
                outputs[index] = infer(feed)
                times[1, index, done, repeat] = time.process_time() - processor
                times[0, index, done, repeat] = time.perf_counter() - wall
            turn.is_over()
        done += 1
    gc.enable()
    ports = [contender.outputs for contender in job.contenders]
    arrays = [
        {port.name: layouts.from_artifact(np.array(results[port.name]), port) for port in sides}
        for sides, results in zip(ports, outputs, strict=True)
    ]
    return times[0, :, :done], times[1, :, :done], arrays


def main(arguments: list[str]) -> None:
    """Entry point: job file, events file; a fault of a runtime ends the process with its traceback."""
    end_with_parent()
    job, events = map(Path, arguments)
    run(from_json(json.loads(job.read_text(encoding="utf-8"))), Events(events).report)


if __name__ == "__main__":
    main(sys.argv[1:])
