"""What measures compiled kernels: the emulated core, this host, or boards. One number a kernel, less is better."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

from edge import processor
from edge.errors import EdgeError, UsageError
from edge.targets import Target
from edge.toolchains import arm64, debian
from edge.tuning import emulated
from edge.tuning.compiled import Kernel
from edge.tuning.workers import Fault, Worker

HOST_LIMIT_S = 60
CLOSE = 0.002
"""Modelled cycles that differ by less are equal: then the kernel that moves fewer cache lines is better."""

Cost = float | Fault


@dataclass(frozen=True)
class Method:
    """How costs are measured; costs compare where these are equal.

    Attributes:
        runner: "emulated", "host" or "rpc".
        device: what the kernels ran on.
        unit: of the costs, "modelled cycles" or "seconds".
        tools: that made and measured them, with their versions.
    """

    runner: str
    device: str
    unit: str
    tools: dict[str, str]


class Runner(Protocol):
    """Measures kernels.

    Attributes:
        method: how.
        suffix: of the files it takes: ".o" or ".so".
        close: costs that differ by a smaller share are equal as far as the runner can tell; 0 if it cannot tell more.
    """

    method: Method
    suffix: str
    close: float

    def costs(self, kernels: Sequence[Kernel]) -> list[Cost]:
        """The cost of each, or why it has none."""

    def traffic(self, kernel: Kernel) -> int:
        """What decides between kernels whose costs are close: cache lines that move, warm."""

    def end(self) -> None:
        """End what it started."""


class Emulated:
    """Modelled cycles on the target's emulated core, several kernels side by side.

    Args:
        target: has an ``[emulated]`` table.
        jobs: how many side by side.
    """

    suffix = ".o"
    close = CLOSE

    def __init__(self, target: Target, jobs: int) -> None:
        if target.emulated is None:
            raise UsageError(
                "its core is not emulated",
                stage="tune",
                target=target.name,
                next_step="take --runner host or rpc://host:port/key, or a target with an [emulated] table",
            )
        emulated.ensure()
        versions = debian.versions(arm64.NAME)
        tools = {**compiler(), "QEMU": versions["qemu-user"], "LLVM": versions["llvm-19"]}
        device = f"QEMU {target.emulated.cpu}, LLVM's model of {target.emulated.scheduling_model}"
        self.method = Method("emulated", device, "modelled cycles", tools)
        self._target = target
        self._pool = ThreadPoolExecutor(jobs)

    def costs(self, kernels: Sequence[Kernel]) -> list[Cost]:
        """See ``Runner``."""
        return list(self._pool.map(self._cost, kernels))

    def _cost(self, kernel: Kernel) -> Cost:
        try:
            return emulated.measure(kernel, self._target).modelled_cycles
        except EdgeError as error:
            return Fault(error.message)

    def traffic(self, kernel: Kernel) -> int:
        """See ``Runner``."""
        memory = emulated.measure(kernel, self._target, caches=True).memory
        assert memory is not None
        return memory.l1d_misses + memory.l2_misses

    def end(self) -> None:
        """See ``Runner``."""
        self._pool.shutdown(cancel_futures=True)


class Host:
    """Time on this host, on one thread, the kernels of a batch in turns; see ``edge.tuning.timing``."""

    suffix = ".so"
    close = 0.0

    def __init__(self, target: Target) -> None:
        if target.core.machine != platform.machine():
            raise UsageError(
                f"this host is {platform.machine()}, the target {target.core.machine}",
                stage="tune",
                target=target.name,
                next_step="take --runner emulated or rpc://host:port/key",
            )
        self.method = Method("host", processor.name(), "seconds", compiler())
        self._worker = Worker("edge.tuning.timing")

    def costs(self, kernels: Sequence[Kernel]) -> list[Cost]:
        """See ``Runner``."""
        try:
            return list(self._worker.ask([kernel.to_json() for kernel in kernels], HOST_LIMIT_S * len(kernels)))
        except Fault as fault:  # one of them took the others along: each by itself
            if len(kernels) == 1:
                return [fault]
            return [cost for kernel in kernels for cost in self.costs([kernel])]

    def traffic(self, kernel: Kernel) -> int:
        """See ``Runner``."""
        return 0

    def end(self) -> None:
        """See ``Runner``."""
        self._worker.close()


def compiler() -> dict[str, str]:
    """What compiles kernels, with its version."""
    return {"TVM": version("apache-tvm")}
