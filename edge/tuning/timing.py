"""The far side of the host's runner: ``python -m edge.tuning.timing``, times kernels in turns.

A host is never quiet. So the kernels take turns: every round runs each of them for a moment, and what one round suffers
all suffer; a kernel's time is the median over the rounds.

In a network a kernel finds its input in the caches, for the kernel before it has just written it, but not its weights,
which were last read an inference ago. So each call is given another copy of the weights, until there are more than the
caches hold; and kernels that take the same copies take them in turn, so that none finds those of the one before it.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from functools import lru_cache
from math import ceil, prod
from typing import Any

import numpy as np

from edge.tuning.compiled import SYMBOL
from edge.tuning.workers import serve

ROUNDS = 9
WARMUP_S = 0.01
TURN_S = 0.002
"""What a kernel runs in one round, so that the clock's own grain does not count."""
WEIGHTS_BYTES, MOST_COPIES = 64 << 20, 512
"""What is read of weights before the first copy comes again; of small ones, which do not matter, fewer."""

Calls = Iterator[list[Any]]
"""The arguments of one call after the other."""


def time_kernels(request: list[dict[str, Any]]) -> list[float]:
    """Seconds of one call of each kernel.

    Args:
        request: for each, its library ("file"), the shapes of its arguments ("shapes") and which of them are weights
            ("weights").
    """
    import tvm

    kernels, shared = [], dict[str, Calls]()
    for kernel in request:
        function = tvm.runtime.load_module(kernel["file"])[SYMBOL]
        shapes, weights = kernel["shapes"], kernel["weights"]
        calls = shared.setdefault(repr((shapes, weights)), _arguments(shapes, weights))
        kernels.append((function, calls, _number(function, calls)))
    seconds: list[list[float]] = [[] for _ in kernels]
    for _ in range(ROUNDS):
        for own, (function, calls, number) in zip(seconds, kernels, strict=True):
            own.append(_run(function, calls, number) / number)
    return [statistics.median(own) for own in seconds]


def _arguments(shapes: list[list[int]], weights: list[int]) -> Calls:
    """The same activations in every call, and weights in turn."""
    alike = [_tensors(tuple(shape), index, 1)[0] for index, shape in enumerate(shapes)]
    size = 4 * sum(prod(shapes[index]) for index in weights)
    copies = min(MOST_COPIES, ceil(WEIGHTS_BYTES / size)) if size else 1
    calls = [list(alike) for _ in range(copies)]
    for index in weights:
        for call, tensor in zip(calls, _tensors(tuple(shapes[index]), index, copies), strict=True):
            call[index] = tensor
    return itertools.cycle(calls)


@lru_cache(maxsize=8)
def _tensors(shape: tuple[int, ...], place: int, copies: int) -> list[Any]:
    """Tensors for an argument; candidates for one problem have the same shapes, and share them."""
    import tvm

    values = np.random.default_rng(place).random(shape, np.float32) - 0.5
    return [tvm.runtime.tensor(values) for _ in range(copies)]


def _run(function: Any, calls: Calls, number: int) -> float:
    arguments = list(itertools.islice(calls, number))
    begin = time.perf_counter()
    for tensors in arguments:
        function(*tensors)
    return time.perf_counter() - begin


def _number(function: Any, calls: Calls) -> int:
    """How many calls fill a turn, found while the kernel warms up."""
    number, begin = 1, time.perf_counter()
    while (seconds := _run(function, calls, number)) < TURN_S or time.perf_counter() - begin < WARMUP_S:
        number = max(number, min(2 * number, round(number * TURN_S / max(seconds, 1e-9)) + 1))
    return number


if __name__ == "__main__":
    serve(time_kernels)
