"""The machine that exports: the host's own build of the runtime, in a worker process."""

from __future__ import annotations

import platform

from edge import processes
from edge.devices import Progress
from edge.processes import Run
from edge.records import EmittedFile, RunJob

GPU_INTERFACES = {"opencl": "OpenCL", "metal": "Metal, which only Apple's systems have"}


class Host:
    """Runs whatever has a runtime in the pipeline's own environment."""

    name = "host"

    def samples(self, macs: int) -> int | None:
        """All."""
        return None

    def obstacle(self, file: EmittedFile) -> str:
        """A library for the target's core is not for the host."""
        if file.runs_on == "target":
            return f"built for the target's core; this host is {platform.machine()}"
        if file.runs_on == "gpu":
            return f"built for a GPU with {GPU_INTERFACES[file.runtime]}"
        return ""

    def ready(self, progress: Progress) -> None:
        """Nothing to set up: the pipeline runs in the same environment."""

    def run(self, job: RunJob) -> Run:
        """Run in a worker."""
        return processes.run(job)

    def close(self) -> None:
        """Nothing to leave."""
