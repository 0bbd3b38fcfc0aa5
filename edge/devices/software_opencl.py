"""OpenCL in software: an artifact's own host in C, on a driver that computes on this machine's processor.

It runs what a phone runs: the same file, kernels and host. It says nothing of a phone's speed, of its driver's faults
or of how much its GPU's work-groups can hold.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from edge import processes
from edge.devices import Progress, native
from edge.processes import Run
from edge.records import EmittedFile, RunJob
from edge.runners import opencl_host
from edge.toolchains import pocl
from edge.toolchains.places import PRIVATE

RUNTIME = "opencl"
CACHE = PRIVATE / "pocl-cache"
LIMIT_S = 900


class SoftwareOpenCl:
    """Runs OpenCL artifacts on PoCL, every sample."""

    name = "software-opencl"

    def samples(self, macs: int) -> int | None:
        """All."""
        return None

    def obstacle(self, file: EmittedFile) -> str:
        """It takes OpenCL artifacts only."""
        return "" if file.runtime == RUNTIME else "OpenCL artifacts only"

    def ready(self, progress: Progress) -> None:
        """Unpack the driver and compile the host.

        Raises:
            SetupError: one of them cannot be had.
        """
        opencl_host.ensure(progress)

    def run(self, job: RunJob) -> Run:
        """Run an artifact on all of the job's samples."""
        plan = native.Plan(native.check_samples(job), limit_s=LIMIT_S)
        desk = processes.desk(job.results)
        desk.mkdir(parents=True)
        native.write_inputs(job, plan.samples, desk)
        answer = desk / "answer.jsonl"
        CACHE.mkdir(parents=True, exist_ok=True)
        program = opencl_host.ensure()
        line = [str(program), *native.arguments(job, plan, str(job.artifact.resolve()), ".")]
        end = processes.execute(
            line, pocl.environment(CACHE), desk, plan.limit_s, log=processes.log_of(job.results), output=answer
        )
        run = native.read(job, plan, desk, answer.read_bytes(), end, f"OpenCL host, PoCL {pocl.version()}")
        # Its seconds are the host's processor's, not a GPU's.
        return replace(run, seconds=None, conditions={"OpenCL device": device} if (device := _device(answer)) else {})

    def close(self) -> None:
        """Nothing is left behind: the program has ended."""


def _device(answer: Path) -> str:
    """What the kernels ran on, as the host says it; empty if it did not get so far."""
    for line in answer.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "loaded":
            return str(event.get("device", ""))
    return ""
