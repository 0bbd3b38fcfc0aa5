"""A GPU in software: LiteRT's GPU accelerator on a Vulkan driver that computes on the host's processor.

It finds what the accelerator refuses and what it computes wrongly. It says nothing of a phone's speed, of its driver's
faults, or of half-precision arithmetic, which the software driver does not have.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge import processes
from edge.devices import Progress
from edge.processes import Run
from edge.records import EmittedFile, RunJob
from edge.runtimes import acceleration
from edge.toolchains import swiftshader

DRIVER = "SwiftShader"


class SoftwareGpu:
    """Runs TFLite files, a few samples: an inference takes a second or more."""

    name = "software-gpu"

    def samples(self, macs: int) -> int | None:
        """A few."""
        return 4

    def obstacle(self, file: EmittedFile) -> str:
        """It takes TFLite files with float32 inputs and outputs."""
        if file.runtime != "litert":
            return "LiteRT's GPU accelerator takes TFLite files only"
        odd = [f"{port.name} is {port.dtype}" for port in (*file.inputs, *file.outputs) if port.dtype != "float32"]
        return f"GPU buffers are float32; {', '.join(odd)}" if odd else ""

    def ready(self, progress: Progress) -> None:
        """Unpack the driver.

        Raises:
            SetupError: it cannot be had.
        """
        swiftshader.ensure(progress)

    def run(self, job: RunJob) -> Run:
        """Run a TFLite file on the GPU, in a worker of its own.

        A file of which the GPU runs nothing is a failed run: its outputs would be the CPU's.
        """
        log = processes.log_of(job.results)
        before = log.stat().st_size if log.is_file() else 0
        run = processes.run(replace(job, runtime="litert_gpu"))
        return judged(run, _since(log, before))

    def close(self) -> None:
        """Nothing is left behind: the worker has ended."""


def judged(run: Run, log: str) -> Run:
    """The run with what its log says of where the operators ran."""
    if run.outputs is None:
        return run
    found = acceleration.read(log)
    if DRIVER not in found.adapter:
        chosen = found.adapter or "no GPU at all"
        return replace(run, outputs=None, reason=f"LiteRT chose {chosen} instead of {DRIVER}")
    if found.taken == 0:
        return replace(run, outputs=None, reason=f"nothing ran on the GPU; {found.remainder}")
    # Its seconds are the host's processor's, not a GPU's.
    return replace(run, seconds=None, remark=found.remainder, conditions={"GPU": found.adapter})


def _since(log: Path, start: int) -> str:
    """What was printed after so many bytes."""
    return log.read_bytes()[start:].decode(errors="replace") if log.is_file() else ""
