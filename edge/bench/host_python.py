"""The host again, for every runtime: in the one environment where all of them live, held to the target's instructions.

A core may have instructions that the target lacks, and most runtimes take what they find. Some can be told not to.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge import processes
from edge.bench.peers import ENVIRONMENT
from edge.devices import Progress
from edge.devices.host import Host
from edge.processes import Run
from edge.records import EmittedFile, RunJob
from edge.targets import Target
from edge.toolchains import environments

LIMIT_S = 900

LIMITS: dict[str, dict[str, str]] = {
    "avx512f": {},
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",  # oneDNN, in OpenVINO and torch
        "ATEN_CPU_CAPABILITY": "avx2",  # torch, and what Inductor compiles
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",  # MKL, in torch
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512VL",  # the C library's memcpy and memset
    },
}
"""By the most that a target has: the environment variables that hold those runtimes to it which heed one."""


def variables(target: Target) -> Mapping[str, str]:
    """Those that hold runtimes to the target's instructions, as far as they let themselves."""
    return next((limits for feature, limits in LIMITS.items() if feature in target.core.features), {})


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
