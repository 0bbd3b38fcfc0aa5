"""Two artifacts of one network on this host, in turns: what mixed precision costs in time."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence

import numpy as np

from edge import layouts
from edge.records import RunJob

_ROUNDS = 15


def fastest_seconds(jobs: Sequence[RunJob]) -> list[float]:
    """Seconds of the fastest inference of each artifact, after one that does not count; they take turns.

    The fastest, because an exporter may work beside this: what else the machine does only adds.

    Args:
        jobs: the artifacts; the first check sample is what they run.
    """
    runs = []
    for job in jobs:
        infer = importlib.import_module(f"edge.runtimes.{job.runtime}").load(
            job.artifact, job.inputs, job.outputs, job.threads
        )
        with np.load(job.check_inputs) as samples:
            runs.append((infer, {port.name: layouts.to_artifact(samples[port.name][:1], port) for port in job.inputs}))
    seconds: list[list[float]] = [[] for _ in jobs]
    for _ in range(1 + _ROUNDS):
        for (infer, feed), taken in zip(runs, seconds, strict=True):
            begin = time.perf_counter()
            infer(feed)
            taken.append(time.perf_counter() - begin)
    return [min(taken[1:]) for taken in seconds]
