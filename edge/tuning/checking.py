"""The far side of ``edge records check``: ``python -m edge.tuning.checking JOB.json EVENTS.jsonl``.

Rebuilds the kernels of some records and measures them again, without what earlier runs have measured.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edge.kernels.core import Core
from edge.records import to_json
from edge.targets import Target
from edge.tuning.far_side import main
from edge.tuning.find import find
from edge.tuning.journal import Journal
from edge.tuning.measuring import Measurements
from edge.tuning.records import refusal
from edge.tuning.task import Task
from edge.tuning.workers import Fault
from edge.worker import Events


def run(job: dict[str, Any], events: Events) -> None:
    """Measure a job's records.

    Args:
        job: target, runner, records (template, problem and choice of each), jobs.
        events: gets "begun" with how costs are measured, and for each record "measured" with its cost, or the reason
            why there is none.
    """
    target = Target.model_validate(job["target"])
    core = Core.of(target)
    runner = find(job["runner"], target, job["jobs"])
    events.report(event="begun", method=to_json(runner.method))
    with tempfile.TemporaryDirectory(prefix="edge-check-") as folder:
        measurements = Measurements(target, runner, Journal(Path(folder) / "journal.jsonl"), Path(folder), job["jobs"])
        try:
            for index, record in enumerate(job["records"]):
                task = Task.from_json(record, core)
                if reason := refusal(task.template_of, task.problem, record["choice"], core):
                    events.report(event="measured", record=index, cost=None, reason=reason)
                    continue
                choice = task.template_of.choices.from_json(record["choice"])
                candidate = measurements.candidate(task, task.space.index(choice))
                (cost,) = measurements.costs([candidate], measurements.compile([candidate]))
                reason = str(cost) if isinstance(cost, Fault) else ""
                events.report(event="measured", record=index, cost=None if reason else cost, reason=reason)
        finally:
            measurements.end()
            runner.end()


if __name__ == "__main__":
    main(run)
