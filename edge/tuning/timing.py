"""The far side of the host's runner: ``python -m edge.tuning.timing``, times kernels in turns.

A host is never quiet. So the kernels take turns: every round runs each of them for a moment, and what one round suffers
all suffer; a kernel's time is the median over the rounds.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from edge.tuning.compiled import SYMBOL
from edge.tuning.workers import serve

ROUNDS = 9
WARMUP_S = 0.01
TURN_S = 0.002
"""What a kernel runs in one round, so that the clock's own grain does not count."""


def time_kernels(request: list[dict[str, Any]]) -> list[float]:
    """Seconds of one call of each kernel.

    Args:
        request: for each, its library ("file") and the shapes of its arguments ("shapes").
    """
    import tvm

    random = np.random.default_rng(0)
    kernels = []
    for kernel in request:
        function = tvm.runtime.load_module(kernel["file"])[SYMBOL]
        tensors = [tvm.runtime.tensor(random.random(shape, np.float32) - 0.5) for shape in kernel["shapes"]]
        kernels.append((function, tensors, _calls(function, tensors)))
    seconds: list[list[float]] = [[] for _ in kernels]
    for _ in range(ROUNDS):
        for own, (function, tensors, calls) in zip(seconds, kernels, strict=True):
            own.append(_run(function, tensors, calls) / calls)
    return [statistics.median(own) for own in seconds]


def _run(function: Any, tensors: list[Any], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        function(*tensors)
    return time.perf_counter() - begin


def _calls(function: Any, tensors: list[Any]) -> int:
    """How many calls fill a turn, found while the kernel warms up."""
    calls, begin = 1, time.perf_counter()
    while (seconds := _run(function, tensors, calls)) < TURN_S or time.perf_counter() - begin < WARMUP_S:
        calls = max(calls, min(2 * calls, round(calls * TURN_S / max(seconds, 1e-9)) + 1))
    return calls


if __name__ == "__main__":
    serve(time_kernels)
