"""The host again, for every runtime: in the one environment where all of them live, held to the target's instructions.

A core may have instructions that the target lacks, and most runtimes take what they find. Some can be told not to.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from edge import processes
from edge.bench.peers import ENVIRONMENT
from edge.devices import Progress
from edge.devices.host import Host
from edge.processes import Run
from edge.records import EmittedFile, RunJob
from edge.targets import Target
from edge.toolchains import environments

LIMIT_S = 900

CPUINFO = {"bmi": "bmi1"}
"""What Linux calls a feature whose name in LLVM is another."""

LIMITS: dict[str, dict[str, str]] = {
    "avx512f": {},
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",  # oneDNN, in OpenVINO and torch
        "ATEN_CPU_CAPABILITY": "avx2",  # torch, and what Inductor compiles
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",  # MKL, in torch
    },
}
"""By the most that a target has: the environment variables that hold those runtimes to it which heed one."""


def cpuinfo() -> dict[str, str]:
    """What Linux says of the first core, by its name for it."""
    first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    lines = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def variables(target: Target) -> Mapping[str, str]:
    """Those that hold runtimes to the target's instructions, as far as they let themselves."""
    return next((limits for feature, limits in LIMITS.items() if feature in target.core.features), {})


def missing(target: Target) -> tuple[str, ...]:
    """Features of the target's core that this host's lacks; its architecture, if it is another."""
    if platform.machine() != target.core.machine:
        return (target.core.machine,)
    flags = cpuinfo().get("flags", "").split()
    return tuple(name for name in target.core.features if CPUINFO.get(name, name) not in flags)


class HostPython:
    """The device; see ``edge.devices.Device``."""

    name = Host.name
    samples = Host.samples

    def __init__(self, target: Target) -> None:
        self._target = target

    def obstacle(self, file: EmittedFile) -> str:
        """It takes what runs on this host."""
        return Host().obstacle(file)

    def ready(self, progress: Progress) -> None:
        """Make the environment.

        Raises:
            SetupError: it cannot be had.
        """
        environments.ensure(ENVIRONMENT, progress)

    def run(self, job: RunJob) -> Run:
        """Run in a worker."""
        return processes.run(job, ENVIRONMENT, LIMIT_S, variables(self._target))

    def close(self) -> None:
        """Nothing to leave."""
