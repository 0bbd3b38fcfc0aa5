"""From a task and a choice to its cost: look it up in the journal, else compile it in a worker and measure it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from edge.fingerprint import file_digest, text_digest
from edge.kernels import registry
from edge.kernels.template import Choice
from edge.targets import Target
from edge.tuning.compiled import SYMBOL, Kernel
from edge.tuning.journal import Journal
from edge.tuning.runners import Cost, Runner
from edge.tuning.task import Task
from edge.tuning.workers import Fault, Worker

COMPILE_LIMIT_S = 60


@dataclass(frozen=True)
class Candidate:
    """One choice for one task.

    Attributes:
        key: digest of everything that decides its cost.
    """

    task: Task
    choice: Choice
    key: str = field(repr=False)


class Measurements:
    """Compiles and measures candidates.

    Args:
        target: what they are compiled for.
        runner: what they are measured on.
        journal: gets every cost, and gives those that are known.
        folder: for compiled kernels; exists.
        jobs: compile workers side by side.
    """

    def __init__(self, target: Target, runner: Runner, journal: Journal, folder: Path, jobs: int) -> None:
        self._target, self._runner, self._journal, self._folder = target, runner, journal, folder
        self._data = target.model_dump(mode="json")
        self._surroundings = _surroundings(target, runner)
        self._compiled: dict[str, Kernel] = {}
        self._pool = ThreadPoolExecutor(jobs)
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._workers = [Worker("edge.tuning.compiling") for _ in range(jobs)]
        for worker in self._workers:
            self._idle.put(worker)

    def candidate(self, task: Task, index: int) -> Candidate:
        """A member of a task's space."""
        choice = task.space[index]
        words = (json.dumps(task.to_json(), sort_keys=True), json.dumps(choice.to_json(), sort_keys=True))
        kernels = (file_digest(source) for source in registry.sources(task.template))
        return Candidate(task, choice, text_digest((self._surroundings, *kernels, *words)))

    def compile(self, candidates: Iterable[Candidate]) -> list[Kernel | Cost]:
        """The compiled kernels, or what is known of them already: a cost, or the fault."""
        return list(self._pool.map(self._compile_or_look_up, candidates))

    def costs(self, candidates: list[Candidate], kernels: list[Kernel | Cost]) -> list[Cost]:
        """Measure what ``compile`` gave, as one batch; the journal gets the rest."""
        fresh = [kernel for kernel in kernels if isinstance(kernel, Kernel)]
        measured = iter(self._runner.costs(fresh) if fresh else ())
        found: list[Cost] = []
        for candidate, kernel in zip(candidates, kernels, strict=True):
            cost = next(measured) if isinstance(kernel, Kernel) else kernel
            if candidate.key not in self._journal:
                self._journal.write(candidate.key, str(cost) if isinstance(cost, Fault) else cost)
            found.append(cost)
        return found

    def traffic(self, candidates: list[Candidate]) -> list[int]:
        """What the runner decides with where costs are close."""
        keys = [f"{candidate.key} traffic" for candidate in candidates]
        fresh = [index for index, key in enumerate(keys) if key not in self._journal]
        measured = self._pool.map(lambda index: self._runner.traffic(self._compile(candidates[index])), fresh)
        for index, lines in zip(fresh, measured, strict=True):
            self._journal.write(keys[index], lines)
        return [int(self._journal[key]) for key in keys]

    def end(self) -> None:
        """End the workers."""
        self._pool.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def _compile_or_look_up(self, candidate: Candidate) -> Kernel | Cost:
        if candidate.key in self._journal:
            known = self._journal[candidate.key]
            return Fault(known) if isinstance(known, str) else known
        try:
            return self._compile(candidate)
        except Fault as fault:
            return fault

    def _compile(self, candidate: Candidate) -> Kernel:
        if candidate.key in self._compiled:
            return self._compiled[candidate.key]
        file = self._folder / f"{candidate.key[:32]}{self._runner.suffix}"
        request = {
            "target": self._data,
            **candidate.task.to_json(),
            "choice": candidate.choice.to_json(),
            "file": str(file),
        }
        worker = self._idle.get()
        try:
            answer = worker.ask(request, COMPILE_LIMIT_S)
        finally:
            self._idle.put(worker)
        self._compiled[candidate.key] = Kernel.from_json(answer)
        return self._compiled[candidate.key]


def _surroundings(target: Target, runner: Runner) -> str:
    """Digest of the target, and of how costs are measured: what decides them beside the kernel."""
    own = Path(__file__).parent
    sources = [own / name for name in ("compiled.py", "emulated.py", "kernel_runner.c", "timing.py")]
    profile = (target.core, target.caches, target.emulated, target.tvm)
    return text_digest(
        (
            SYMBOL,
            *(file_digest(source) for source in sources),
            *(part.model_dump_json() for part in profile if part is not None),
            repr(runner.method),
        )
    )
