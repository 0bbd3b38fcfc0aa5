"""The emulated core again, for runtimes that come as Python wheels: in CPython, through ``edge.bench.runner``.

Everything else is as for native runners (``edge.devices.emulated``): the same QEMU command, the same protocol, the same
counter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edge import processes
from edge.bench.peers import PEERS, WHEELS, locked
from edge.cost import counter
from edge.devices import Progress, emulated, native
from edge.devices.emulated import LIMIT_S, Emulated
from edge.devices.native import Plan
from edge.processes import Library, Run
from edge.records import EmittedFile, RunJob
from edge.targets import Target
from edge.targets.profile import Caches
from edge.toolchains import arm64, arm64_python, debian, wheels
from edge.toolchains.places import REPOSITORY

RUNNER = "edge.bench.runner"


class EmulatedPython:
    """The device; see ``edge.devices.Device``."""

    name = Emulated.name
    samples = Emulated.samples

    def __init__(self, target: Target) -> None:
        self._target = target

    def obstacle(self, file: EmittedFile) -> str:
        """It takes what the peers' converters make."""
        return "" if PEERS.get(file.runtime) in locked(WHEELS) else f"no Python runtime for {file.runtime}"

    def ready(self, progress: Progress) -> None:
        """Unpack the emulator, the interpreter and the runtimes, build the counter, write the core's files."""
        arm64.ensure(progress)
        arm64_python.ensure(progress)
        wheels.ensure(WHEELS, progress)
        counter.ensure(progress)
        emulated.root(self._target)

    def run(self, job: RunJob) -> Run:
        """Run on all samples of the job; the last inference is counted."""
        return self._run(job, Plan(native.check_samples(job), limit_s=LIMIT_S), caches=None)

    def count(self, job: RunJob) -> Run:
        """Count one warm inference and the caches' misses: always the same command, so that counts repeat."""
        return self._run(job, Plan(samples=1, warmups=1, repeats=1, limit_s=LIMIT_S), self._target.caches)

    def _run(self, job: RunJob, plan: Plan, caches: Caches | None) -> Run:
        assert self._target.emulated is not None
        desk = processes.desk(job.results)
        desk.mkdir(parents=True)
        # The desk is the program's root, for the reason given in ``edge.devices.emulated``.
        artifact, core = f"/artifact{job.artifact.suffix}", emulated.root(self._target)
        links = {
            "python": debian.folder(arm64_python.NAME),
            "wheels": wheels.folder(WHEELS),
            "source": REPOSITORY,
            artifact[1:]: job.artifact,
            "proc": core / "proc",
            "sys": core / "sys",
        }
        for name, place in links.items():
            (desk / name).symlink_to(place)
        native.write_inputs(job, plan.samples, desk)
        executed, answer = desk / "executed.txt", desk / "answer.jsonl"
        variables = arm64_python.environment("/source", "/wheels")
        settings = [part for name, value in variables.items() for part in ("-E", f"{name}={value}")]
        plugin = counter.options(counter.ensure(_silent), executed, caches)
        loader, *interpreter = arm64_python.command("/python", RUNNER)
        line = [
            *emulated.command(self._target, *plugin, *settings, files=desk),
            f".{loader}",  # which QEMU itself opens, in the desk
            *interpreter,
            job.runtime,
            *native.arguments(replace(job, threads=1), plan, artifact, "."),
        ]
        log = processes.log_of(job.results)
        end = processes.execute(line, emulated.environment(), desk, LIMIT_S, log=log, output=answer)
        run = native.read(job, plan, desk, answer.read_bytes(), end, PEERS[job.runtime].runtime(WHEELS))
        libraries = tuple(Library(_inside(library.path, links), library.base) for library in run.libraries)
        return replace(run, seconds=None, executed=executed if run.outputs else None, libraries=libraries)

    def close(self) -> None:
        """Nothing to leave."""


def _inside(path: str, links: Mapping[str, Path]) -> str:
    """A path as the program's root has it: QEMU tells the program the host's. The links inside others come first."""
    found = next((name for name, place in links.items() if Path(path).is_relative_to(place)), None)
    return f"/{found}/{Path(path).relative_to(links[found])}" if found else path


def _silent(line: str) -> None:
    pass
