"""What kernels cost that are not ours: their share of the program's time on the host, clocked call by call."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

BUILTIN = "vm.builtin"
"""What the virtual machine does itself: memory, shapes."""
WARMUPS, RUNS = 1, 3
LEAST = 0.01
"""Shares below are not told apart."""


def shares(library: Path, shapes: Iterable[tuple[int, ...]], kernels: Collection[str]) -> dict[str, float]:
    """The share of each of these kernels in the time of all, on one thread of this host.

    Args:
        library: as ``library.write`` made it for this host.
        shapes: of the program's inputs, which are float32.
        kernels: by the names in the module.
    """
    os.environ["TVM_NUM_THREADS"] = "1"
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library.resolve())), tvm.cpu())
    random = np.random.default_rng(0)
    inputs = [tvm.runtime.tensor(random.random(shape, np.float32)) for shape in shapes]
    seconds: dict[str, float] = defaultdict(float)
    begun = 0.0

    def clock(_function: Any, name: str, before: bool, _result: Any, *_arguments: Any) -> None:
        nonlocal begun
        if before:
            begun = time.perf_counter()
        elif not name.startswith(BUILTIN):
            seconds[name] += time.perf_counter() - begun

    for _ in range(WARMUPS):
        machine["main"](*inputs)
    machine.set_instrument(clock)
    for _ in range(RUNS):
        machine["main"](*inputs)
    total = sum(seconds.values())
    return {name: seconds[name] / total for name in kernels}


def spelled(found: dict[str, float]) -> str:
    """Such as "max_pool2d 4%, mean under 1%", the largest first."""
    by_share = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(
        f"{name} {share:.0%}" if share >= LEAST else f"{name} under {LEAST:.0%}" for name, share in by_share
    )
