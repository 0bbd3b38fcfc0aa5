"""The target's core, emulated by QEMU's user mode: always a named core, always one CPU, the same addresses every time.

The emulated core executes the target's own instructions: what it lacks is an illegal instruction, and the results have
the bits that the target's arithmetic gives. Its speed says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edge import processes
from edge.cost import counter
from edge.devices import Progress, core_files, native
from edge.fingerprint import file_digest, text_digest
from edge.processes import Run
from edge.records import EmittedFile, RunJob
from edge.runners import artifacts, build
from edge.targets import Target
from edge.targets.profile import Caches
from edge.toolchains import arm64
from edge.toolchains.environments import exclusive
from edge.toolchains.places import PRIVATE

ROOTS = PRIVATE / "emulated"
GUEST_MEMORY = "0x1C0000000"
"""7 GiB of addresses, reserved at the start: without it the host's randomised layout would decide the guest's.

In 4 GiB TVM could not load convnext_xlarge, 1.4 GB of weights. QEMU places libraries at a third of this: 3 GiB more
leave every address the same set in the caches, and tuning records the same modelled cycles.
"""
LIMIT_S = 3600
MACS_PER_CHECK = 8_000_000_000
"""Emulated at about 150 million multiply-adds a second."""
START = (native.START[0], "--library-path", "/lib", "/run")
"""Starts a runner whose bundle lies in its root."""


def root(target: Target) -> Path:
    """The folder QEMU gets as ``-L``: the core's files in ``/proc`` and ``/sys``, made once for each profile."""
    assert target.emulated is not None
    parts = (target.core.model_dump_json(), target.caches.model_dump_json(), target.emulated.model_dump_json())
    folder = ROOTS / f"{target.name}-{text_digest(parts)[:16]}"
    if not folder.is_dir():
        with exclusive(ROOTS / f".{target.name}.lock"):
            partial = folder.with_suffix(".partial")
            core_files.write(target, partial)
            partial.rename(folder)
    return folder


def command(target: Target, *options: str, files: Path | None = None) -> list[str]:
    """What goes before a program of the target's to run it on the emulated core.

    Args:
        target: has an ``[emulated]`` table.
        options: more of QEMU's own, such as a plugin.
        files: another ``-L`` folder that holds the core's files beside a whole system.
    """
    assert target.emulated is not None
    qemu, place = arm64.program("qemu-aarch64"), files or root(target)
    # QEMU hands its own environment to the program, where its size would shift the stack, and with it cache misses.
    unset = [part for name in environment() for part in ("-U", name)]
    fixed = ["-R", GUEST_MEMORY, "-seed", "0", *unset]
    return [str(qemu.path), "-cpu", target.emulated.cpu, "-L", str(place), *fixed, *options]


def environment() -> Mapping[str, str]:
    """All variables of the emulator."""
    return arm64.program("qemu-aarch64").environment


class Emulated:
    """Runs what a native runner takes, with one thread, and a few samples: an inference takes seconds here.

    A bundle gets the answer of its program, where that ran before with the same samples: it is the .pte beside it.
    """

    name = "emulated"

    def __init__(self, target: Target) -> None:
        self._target = target
        self._ran: dict[tuple[object, ...], tuple[str, Run]] = {}

    def samples(self, macs: int) -> int | None:
        """Four, as long as that is a minute or so; a larger network's fewer, and one at least."""
        return min(4, max(1, MACS_PER_CHECK // macs))

    def obstacle(self, file: EmittedFile) -> str:
        """A library for the host is not for the core."""
        return native.obstacle(file)

    def ready(self, progress: Progress) -> None:
        """Unpack the emulator and the target's tools, build the counter, write the core's files."""
        arm64.ensure(progress)
        counter.ensure(progress)
        root(self._target)

    def run(self, job: RunJob) -> Run:
        """Run in the runtime's native runner; the last inference is counted. The emulator's seconds are left out."""
        return self._run(job, native.Plan(native.check_samples(job), limit_s=LIMIT_S), caches=None)

    def count(self, job: RunJob) -> Run:
        """Count one warm inference and the caches' misses: always the same command, so that counts repeat."""
        return self._run(job, native.Plan(samples=1, warmups=1, repeats=1, limit_s=LIMIT_S), self._target.caches)

    def _run(self, job: RunJob, plan: native.Plan, caches: Caches | None) -> Run:
        assert self._target.emulated is not None
        bundle = build.bundle(job.runtime, _silent)
        desk = processes.desk(job.results)
        desk.mkdir(parents=True)
        try:
            real = artifacts.prepare(job.runtime, job.artifact, desk)
        except ValueError as error:
            return Run(None, str(error), native.title(job.runtime))
        same = (file_digest(real), file_digest(job.check_inputs), job.inputs, job.outputs, plan, caches)
        if real != job.artifact and same in self._ran:
            name, run = self._ran[same]
            return replace(run, remark=f"the program in it is {name}, byte for byte, which ran")
        # The desk is the program's root, where it finds what it loads: the loader keeps the whole names of libraries in
        # memory, so names that depend on this host would shift its heap.
        artifact, core = f"/artifact{real.suffix}", root(self._target)
        links = {"lib": bundle / "lib", "run": bundle / "run", artifact[1:]: real}
        for name, file in (links | {name: core / name for name in ("proc", "sys")}).items():
            (desk / name).symlink_to(file)
        native.write_inputs(job, plan.samples, desk)
        executed, answer = desk / "executed.txt", desk / "answer.jsonl"
        line = [
            *command(self._target, *counter.options(counter.ensure(_silent), executed, caches), files=desk),
            *START,
            *native.arguments(replace(job, threads=1), plan, artifact, "."),
        ]
        end = processes.execute(line, environment(), desk, LIMIT_S, log=processes.log_of(job.results), output=answer)
        runtime = f"{native.title(job.runtime)}, QEMU's {self._target.emulated.cpu}"
        run = native.read(job, plan, desk, answer.read_bytes(), end, runtime)
        if run.outputs is None:
            return replace(run, seconds=None)
        run = replace(run, seconds=None, executed=executed)
        self._ran[same] = (job.artifact.name, run)
        return run

    def close(self) -> None:
        """Nothing to leave."""


def _silent(line: str) -> None:
    pass
