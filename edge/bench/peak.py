"""What this host's core can do at most: the multiply-adds a second of a loop that does nothing else.

Data sheets name a clock that no core keeps. The far side, ``python -m edge.bench.peak``, times the loop in a process of
its own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge.targets import Target
from edge.tuning.workers import Worker, serve

LIMIT_S = 120
CHAINS = 12
"""Sums in registers of their own: more than the latency times the pipes of any core, fewer than any has registers."""
STEPS, TRIALS = 1_000_000, 20


def peak_gflops(target: Target) -> float:
    """The peak of one core in float32 with the target's vectors, a multiply-add counting as two, in 10⁹/s.

    Raises:
        Fault: it could not be compiled, or is not done after ``LIMIT_S``.
    """
    worker = Worker("edge.bench.peak")
    try:
        return float(worker.ask({"target": target.model_dump(mode="json")}, LIMIT_S))
    finally:
        worker.close()


def measure(request: dict[str, Any]) -> float:
    """Compile the loop for the request's target, and time it."""
    import tvm

    from edge.kernels.core import Core
    from edge.tuning.compiled import SYMBOL, compile_kernel

    target = Target.model_validate(request["target"])
    lanes = Core.of(target).lanes
    with tempfile.TemporaryDirectory(prefix="edge-peak-") as folder:
        kernel = compile_kernel(_loop(lanes), target, Path(folder) / "peak.so")
        loop = tvm.runtime.load_module(str(kernel.file))[SYMBOL]
        arguments = [tvm.runtime.tensor(np.ones(shape, np.float32)) for shape in kernel.shapes]
        seconds = min(_processor_time(lambda: loop(*arguments)) for _ in range(TRIALS))
    return 2 * CHAINS * lanes * STEPS / seconds / 1e9


def _processor_time(call: Callable[[], object]) -> float:
    """As the runtimes are timed: other work on the machine does not lengthen it."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _loop(lanes: int) -> Any:
    """A function of TIR: sums = sums * x + x, over and over."""
    from tvm import tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("peak")
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.arg("x", T.buffer((lanes,), "float32"))
        result = T.arg("result", T.buffer((CHAINS, lanes), "float32"))
        sums = T.alloc_buffer((CHAINS, lanes), "float32")

        def everywhere(value: Any, into: Any) -> None:
            with T.unroll(CHAINS) as chain, T.vectorized(lanes) as lane:
                T.buffer_store(into, value(chain, lane), [chain, lane])

        everywhere(lambda chain, lane: tirx.const(0, "float32"), sums)
        with T.serial(STEPS):
            everywhere(lambda chain, lane: sums[chain, lane] * x[lane] + x[lane], sums)
        everywhere(lambda chain, lane: sums[chain, lane], result)
    return builder.get()


if __name__ == "__main__":
    serve(measure)
