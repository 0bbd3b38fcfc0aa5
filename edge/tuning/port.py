"""``edge records port``: tune a target for every problem that another target has a record of.

What is fast on one core is seldom slow on its relatives, so each search begins with the other target's choice and a
small budget is enough. The choice is only where the search begins: it is measured like any other.
"""

from __future__ import annotations

from typing import Any

from edge.errors import InputError
from edge.progress import Reporter
from edge.tuning import records
from edge.tuning.records import Records
from edge.tuning.tune import Plan, tune

BATCH = 24
"""Problems of one run of the tuner: after each, their records are written."""


def port(plan: Plan, source: str, reporter: Reporter) -> Records:
    """Tune for the problems of another target's records that the target has no record of yet.

    Args:
        plan: how, and for which target.
        source: the other target's name.
        reporter: shows progress.

    Returns:
        The target's records, as written.

    Raises:
        InputError: the other target has no records, or is the same.
        EdgeError: see ``tune``; what earlier batches found is kept.
    """
    if source == plan.target.name:
        raise InputError(
            "a target's records cannot be ported to itself",
            stage="tune",
            target=source,
            next_step="name another target with --like",
        )
    file = plan.file or records.path(plan.target.name)
    merged = records.read(file) if file.is_file() else Records(target=plan.target.name, records=())
    known = {(record.template, record.problem) for record in merged.records}
    tasks: list[dict[str, Any]] = [
        {"template": record.template, "problem": record.shape, "hint": record.choice}
        for record in records.read(records.path(source)).records
        if (record.template, record.problem) not in known
    ]
    for start in range(0, len(tasks), BATCH):
        merged = tune(plan, tasks[start : start + BATCH], reporter)
        reporter.note(f"{min(start + BATCH, len(tasks))} of {len(tasks)} problems of {source}'s records")
    return merged
