"""TVM's MetaSchedule drives the search: templates are its spaces, our searches its strategies, our runners its runners.

A template's space is a schedule function with a single decision, the index of the choice:

    choice = sample_categorical(0 … n - 1);  annotate(root, "edge.choice", choice)

on a placeholder that names the task. The builder reads both and has the template make the kernel, in a worker. So a
template needs nothing of MetaSchedule, and MetaSchedule shares the trials among the tasks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import tvm
from tvm import te
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule

from edge.kernels.meta_schedule import ms
from edge.tuning.compiled import Kernel
from edge.tuning.measuring import Candidate, Measurements
from edge.tuning.runners import Cost
from edge.tuning.search import Search
from edge.tuning.task import Task
from edge.tuning.workers import Fault

BATCH = 16
"""Candidates between two looks at the costs. Part of what decides an evolutionary search, so it is no option."""
CHOICE, TASK = "edge.choice", "edge.task"

OnCost = Callable[[int, int, Cost], None]
"""Called with the index of the task, the index of the choice, and the cost."""


def tune(tasks: list[Task], searches: list[Search], measurements: Measurements, seed: int, on_cost: OnCost) -> None:
    """Run the searches to their ends, the tasks in turns.

    Args:
        tasks: what is tuned.
        searches: one for each task.
        measurements: of the candidates.
        seed: for MetaSchedule's own random numbers.
        on_cost: called with each cost as it is known.
    """
    pipe = _Pipe(tasks, measurements, on_cost)
    contexts = [
        ms.TuneContext(
            mod=_placeholder(index),
            target=tvm.target.Target({"kind": "llvm", "num-cores": 1}),  # nobody compiles placeholders
            space_generator=_space(len(task.space)),
            search_strategy=_Strategy(search),
            task_name=str(index),
            rand_state=seed + 1,
            num_threads=1,
        )
        for index, (task, search) in enumerate(zip(tasks, searches, strict=True))
    ]
    with tempfile.TemporaryDirectory(prefix="edge-metaschedule-") as folder:
        ms.tune.tune_tasks(
            tasks=contexts,
            task_weights=[1.0] * len(tasks),
            work_dir=folder,
            max_trials_global=sum(len(task.space) for task in tasks),  # each search knows its own end
            num_trials_per_iter=BATCH,
            builder=_Builder(pipe),
            runner=_Runner(pipe),
            database="memory",
            cost_model=ms.cost_model.RandomModel(),
            measure_callbacks=[],
            task_scheduler="round-robin",
        )


def _placeholder(task: int) -> Any:
    x = te.placeholder((1,), name="x")
    return te.create_prim_func([x, te.compute((1,), lambda i: x[i], name="y")]).with_attr(TASK, task)


def _space(size: int) -> Any:
    def schedule(placeholder: Schedule) -> None:
        choice = placeholder.sample_categorical(list(range(size)), [1 / size] * size)
        placeholder.annotate(placeholder.get_sblock("root"), CHOICE, choice)

    return ms.space_generator.ScheduleFn(schedule, sch_rules=[], postprocs=[], mutator_probs={})


class _Pipe:
    """What builder and runner share: candidates on their way, by the name that MetaSchedule carries between the two."""

    def __init__(self, tasks: list[Task], measurements: Measurements, on_cost: OnCost) -> None:
        self._tasks, self._measurements, self._on_cost = tasks, measurements, on_cost
        self._under_way: dict[str, tuple[int, int, Candidate, Kernel | Cost]] = {}

    def build(self, members: list[tuple[int, int]]) -> list[str]:
        candidates = [self._measurements.candidate(self._tasks[task], choice) for task, choice in members]
        compiled = self._measurements.compile(candidates)
        for (task, choice), candidate, kernel in zip(members, candidates, compiled, strict=True):
            self._under_way[candidate.key] = (task, choice, candidate, kernel)
        return [candidate.key for candidate in candidates]

    def run(self, names: list[str]) -> list[Cost]:
        batch = [self._under_way.pop(name) for name in names]
        costs = self._measurements.costs([candidate for *_, candidate, _ in batch], [kernel for *_, kernel in batch])
        for (task, choice, *_), cost in zip(batch, costs, strict=True):
            self._on_cost(task, choice, cost)
        return costs


@derived_object
class _Builder(ms.builder.PyBuilder):
    def __init__(self, pipe: _Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    def build(self, build_inputs: list[Any]) -> list[Any]:
        functions = [given.mod["main"] for given in build_inputs]
        members = [(int(f.attrs[TASK]), int(f.body.block.annotations[CHOICE])) for f in functions]
        return [ms.builder.BuilderResult(name, None) for name in self._pipe.build(members)]


@derived_object
class _Runner(ms.runner.PyRunner):
    def __init__(self, pipe: _Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    def run(self, runner_inputs: list[Any]) -> list[Any]:
        return [_Known(cost) for cost in self._pipe.run([str(given.artifact_path) for given in runner_inputs])]


@derived_object
class _Known(ms.runner.PyRunnerFuture):
    """A result that is there."""

    def __init__(self, cost: Cost) -> None:
        super().__init__()
        self._cost = cost

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        if isinstance(self._cost, Fault):
            return ms.runner.RunnerResult(None, str(self._cost))
        return ms.runner.RunnerResult([float(self._cost)], None)


@derived_object
class _Strategy(ms.search_strategy.PySearchStrategy):
    """One of our searches as MetaSchedule's strategy."""

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search
        self._proposed: list[int] = []

    def _initialize_with_tune_context(self, context: Any) -> None:
        self._placeholder = context.mod

    def pre_tuning(self, max_trials: int, num_trials_per_iter: int, design_spaces: Any, *_: Any) -> None:
        (self._space,) = design_spaces
        self._arguments = ms.arg_info.ArgInfo.from_entry_func(self._placeholder, remove_preproc=True)

    def post_tuning(self) -> None:
        pass

    def generate_measure_candidates(self) -> list[Any] | None:
        self._proposed = self._search.propose(BATCH)
        return [self._candidate(choice) for choice in self._proposed] or None

    def notify_runner_results(self, _: Any, results: list[Any]) -> None:
        for choice, result in zip(self._proposed, results, strict=True):
            self._search.learn(choice, float(result.run_secs[0]) if result.run_secs else None)

    def clone(self) -> Any:
        return _Strategy(self._search)

    def _candidate(self, choice: int) -> Any:
        (decision,) = (step for step in self._space.trace.insts if step.kind.name == "SampleCategorical")
        schedule = Schedule(self._placeholder)
        self._space.trace.with_decision(decision, choice, remove_postproc=False).apply_to_schedule(schedule, False)
        return ms.MeasureCandidate(schedule, self._arguments)
