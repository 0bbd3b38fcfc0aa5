"""The far side of ``edge tune``: ``python -m edge.tuning.searching JOB.json EVENTS.jsonl``.

Runs the searches of all tasks, appends one JSON line an event, and ends with the choice of each task. TVM lives here
and in the compile workers, never in the command's own process.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from edge.kernels.core import Core
from edge.records import to_json
from edge.targets import Target
from edge.tuning import collecting, metaschedule, records
from edge.tuning.far_side import main
from edge.tuning.find import find
from edge.tuning.journal import Journal
from edge.tuning.measuring import Measurements
from edge.tuning.runners import Cost, Runner
from edge.tuning.search import Search, search
from edge.tuning.task import Task
from edge.tuning.workers import Fault
from edge.worker import Events

FINALISTS = 3


def run(job: dict[str, Any], events: Events) -> None:
    """Tune a job's tasks.

    Args:
        job: target, runner, model or tasks (each with a choice to try first, "hint", or without), budget (of one task),
            seed, jobs, journal.
        events: gets "begun" with the tasks and how costs are measured, "measured" for every cost, and "chosen" or
            "failed" for every task.
    """
    target = Target.model_validate(job["target"])
    core = Core.of(target)
    hints: dict[Task, dict[str, Any]] = {}
    if "model" in job:
        found = collecting.tasks(job["model"], core)
    else:
        found = Counter(Task.from_json(task, core) for task in job["tasks"])
        hints = {Task.from_json(task, core): task["hint"] for task in job["tasks"] if "hint" in task}
    tasks = list(found)
    runner = find(job["runner"], target, job["jobs"])
    sizes = [len(task.space) for task in tasks]
    events.report(
        event="begun",
        method=to_json(runner.method),
        tasks=[
            {
                **task.to_json(),
                "key": task.key,
                "macs": task.problem.macs,
                "bytes": task.problem.bytes,
                "count": found[task],
                "choices": size,
                "trials": min(size, job["budget"]),
            }
            for task, size in zip(tasks, sizes, strict=True)
        ],
    )
    journal = Journal(Path(job["journal"]))
    with tempfile.TemporaryDirectory(prefix="edge-tune-") as folder:
        measurements = Measurements(target, runner, journal, Path(folder), job["jobs"])
        try:
            searches = [_search(task, hints.get(task), job["budget"], job["seed"]) for task in tasks]
            _tune(tasks, searches, measurements, runner, job["seed"], events)
        finally:
            measurements.end()
            runner.end()
            journal.close()


def _search(task: Task, hint: dict[str, Any] | None, budget: int, seed: int) -> Search:
    """A search of the task's space; a hint that is not in the space is none."""
    hints = []
    if hint is not None and not records.refusal(task.template_of, task.problem, hint, task.core):
        hints = [task.space.index(task.template_of.choices.from_json(hint))]
    return search([choice.to_json() for choice in task.space], task.default, budget, seed, hints)


def _tune(
    tasks: list[Task],
    searches: list[Search],
    measurements: Measurements,
    runner: Runner,
    seed: int,
    events: Events,
) -> None:
    costs: list[dict[int, float]] = [{} for _ in tasks]

    def on_cost(task: int, choice: int, cost: Cost) -> None:
        if not isinstance(cost, Fault):
            costs[task][choice] = cost
        fault = str(cost) if isinstance(cost, Fault) else ""
        best = min(costs[task].values(), default=None)
        events.report(event="measured", task=task, choice=choice, best=best, fault=fault)

    metaschedule.tune(tasks, searches, measurements, seed, on_cost)
    for index, (task, known) in enumerate(zip(tasks, costs, strict=True)):
        if not known:
            events.report(event="failed", task=index, reason="no choice could be measured")
            continue
        choice = _best(task, known, measurements, runner.close)
        default = known.get(task.default)
        events.report(
            event="chosen", task=index, choice=task.space[choice].to_json(), cost=known[choice], default=default
        )


def _best(task: Task, costs: dict[int, float], measurements: Measurements, close: float) -> int:
    """The least cost; of several that are close, the kernel that moves the fewest cache lines."""
    ranked = sorted(costs, key=lambda choice: (costs[choice], choice))
    finalists = [choice for choice in ranked if costs[choice] <= costs[ranked[0]] * (1 + close)][:FINALISTS]
    if len(finalists) == 1:
        return finalists[0]
    traffic = measurements.traffic([measurements.candidate(task, choice) for choice in finalists])
    return min(zip(traffic, finalists, strict=True))[1]


if __name__ == "__main__":
    main(run)
