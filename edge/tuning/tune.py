"""``edge tune``: find the fastest choice for every kernel of a network and keep it as a record of the target."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge import processes
from edge.errors import ExportError, InputError
from edge.progress import Reporter
from edge.targets import Target
from edge.toolchains.places import PRIVATE
from edge.tuning import BUDGET, records
from edge.tuning.records import Measurement, Record, Records

JOURNALS = PRIVATE / "tuning"
LIMIT_S = 24 * 3600


@dataclass(frozen=True)
class Plan:
    """One run of the tuner.

    Attributes:
        target: what is tuned for.
        runner: "emulated", "host" or "rpc://host:port/key".
        budget: candidates of one kernel at most.
        seed: of the searches.
        jobs: compile workers and emulated cores side by side.
        fresh: forget what earlier runs measured.
        file: of the records; None for the target's own.
    """

    target: Target
    runner: str
    budget: int = BUDGET
    seed: int = 0
    jobs: int = 2
    fresh: bool = False
    file: Path | None = None


def tune(plan: Plan, what: str | Sequence[dict[str, Any]], reporter: Reporter) -> Records:
    """Tune kernels and merge the records with the target's.

    Args:
        plan: how.
        what: a network, by its name or as a saved program (.pt2); or template and problem of each kernel as plain data,
            and a choice to try first ("hint") where there is one.
        reporter: shows progress.

    Returns:
        The target's records, as written.

    Raises:
        EdgeError: the runner cannot be had, or the search itself failed. Choices that fail are left out.
    """
    journal = JOURNALS / f"{plan.target.name}.jsonl"
    if plan.fresh:
        journal.unlink(missing_ok=True)
    job = {
        "target": plan.target.model_dump(mode="json"),
        "runner": plan.runner,
        **({"model": what} if isinstance(what, str) else {"tasks": list(what)}),
        "budget": plan.budget,
        "seed": plan.seed,
        "jobs": plan.jobs,
        "journal": str(journal),
    }
    if isinstance(what, str) and what.endswith(".pt2") and not Path(what).is_file():
        raise InputError(f"there is no file {what}", stage="define", model=what, next_step="check the path")
    board = _Board(reporter)
    with (
        tempfile.TemporaryDirectory(prefix="edge-tune-") as scratch,
        processes.session(),
        reporter.running(),
        reporter.lane("tune") as board.step,
    ):
        desk = Path(scratch) / "desk"
        _, end = processes.work(job, "base", 1, LIMIT_S, desk, board.on_event, "edge.tuning.searching")
    if end.reason or board.problem:
        raise ExportError(
            f"the search failed: {board.problem or end.reason}",
            stage="tune",
            target=plan.target.name,
            next_step="run it again: what was measured is kept; with --jobs 1 it needs less memory",
        )
    file = plan.file or records.path(plan.target.name)
    found = Records(target=plan.target.name, records=tuple(board.found))
    merged = records.merge(plan.target, [*([records.read(file)] if file.is_file() else []), found])
    records.write(merged, file)
    reporter.note(f"{len(found.records)} records in {os.path.relpath(file)}")
    return merged


class _Board:
    """Follows the search's events: what is tuned, the best so far, what was found."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._tasks: list[dict[str, Any]] = []
        self._method: dict[str, Any] = {}
        self._measured: list[int] = []
        self.found: list[Record] = []
        self.problem = ""
        self.step: Callable[[str], None] = reporter.note

    def on_event(self, event: dict[str, Any]) -> None:
        """See ``edge.tuning.searching``."""
        getattr(self, f"_on_{event['event']}")(event)

    def _on_begun(self, event: dict[str, Any]) -> None:
        self._tasks, self._method = event["tasks"], event["method"]
        self._measured = [0] * len(self._tasks)
        for task in self._tasks:
            how = "all" if task["trials"] == task["choices"] else f"{task['trials']} of"
            self._reporter.note(f"{task['key']}: {how} {task['choices']} choices")

    def _on_measured(self, event: dict[str, Any]) -> None:
        index = event["task"]
        self._measured[index] += 1
        task, best = self._tasks[index], event["best"]
        done, total = sum(self._measured), sum(task["trials"] for task in self._tasks)
        text = "nothing measured yet" if best is None else f"best {self._cost(best)}"
        self.step(f"{done} of {total}; {task['key']}: {text}")

    def _on_failed(self, event: dict[str, Any]) -> None:
        self._reporter.note(f"{self._tasks[event['task']]['key']}: {event['reason']}")

    def _on_chosen(self, event: dict[str, Any]) -> None:
        task = self._tasks[event["task"]]
        gain = f", {event['default'] / event['cost']:.2f} times the default's speed" if event["default"] else ""
        self._reporter.note(f"{task['key']}: {self._cost(event['cost'])}{gain}")
        self.found.append(
            Record(
                problem=task["key"],
                template=task["template"],
                shape=task["problem"],
                macs=task["macs"],
                bytes=task["bytes"],
                choice=event["choice"],
                measured=Measurement(cost=event["cost"], default=event["default"], **self._method),
            )
        )

    def _on_ended(self, event: dict[str, Any]) -> None:
        self.problem = event["reason"]

    def _cost(self, cost: float) -> str:
        return f"{cost:,.0f} modelled cycles" if self._method["unit"] == "modelled cycles" else f"{cost * 1e6:,.1f} µs"
