"""``edge records check``: do a target's records still hold? A sample of them is rebuilt and measured again."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge import processes
from edge.errors import ExportError, UsageError
from edge.progress import Reporter
from edge.targets import Target
from edge.tuning import records
from edge.tuning.records import Record

LIMIT_S = 3600
TOLERANCE = {"modelled cycles": 0.01, "seconds": 0.25}
"""How far a cost may be from the recorded one. Modelled cycles differ with the tools' versions only."""


@dataclass(frozen=True)
class Checked:
    """What became of one record.

    Attributes:
        cost: as measured now; None where it was not.
        reason: why the record does not hold, or was not measured; empty if it holds.
    """

    record: Record
    cost: float | None
    reason: str


def check(target: Target, runner: str, sample: int, seed: int, reporter: Reporter, jobs: int = 2) -> list[Checked]:
    """Rebuild and measure a sample of a target's records.

    Args:
        target: whose records.
        runner: what measures them; only records that it measured are taken.
        sample: how many at most.
        seed: decides which.
        reporter: shows progress.
        jobs: emulated cores side by side.

    Returns:
        The sample, in the records' order.

    Raises:
        UsageError: none of the records was measured by this runner.
        InputError: there are no records, or the file is broken.
        ExportError: nothing could be measured at all.
    """
    own = [r for r in records.read(records.path(target.name)).records if runner.startswith(r.measured.runner)]
    if not own:
        raise UsageError(
            f"no record was measured by the runner {runner}",
            stage="tune",
            target=target.name,
            next_step=f"`edge tune <model> --target {target.name} --runner {runner}` makes some",
        )
    chosen = sorted(random.Random(seed).sample(range(len(own)), min(sample, len(own))))
    taken = [own[index] for index in chosen]
    job = {
        "target": target.model_dump(mode="json"),
        "runner": runner,
        "jobs": jobs,
        "records": [{"template": r.template, "problem": r.shape, "choice": r.choice} for r in taken],
    }
    with (
        tempfile.TemporaryDirectory(prefix="edge-check-") as scratch,
        processes.session(),
        reporter.running(),
        reporter.lane("records check") as step,
    ):

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "measured":
                step(taken[event["record"]].problem)

        events, end = processes.work(job, "base", 1, LIMIT_S, Path(scratch) / "desk", on_event, "edge.tuning.checking")
    found = {event["record"]: event for event in events if event["event"] == "measured"}
    if len(found) < len(taken):
        problems = [event["reason"] for event in events if event["event"] == "ended"]
        raise ExportError(
            f"the records could not be measured: {(problems or [end.reason])[0]}",
            stage="tune",
            target=target.name,
            next_step="take --sample 1 to see whether any can",
        )
    device = next(event["method"]["device"] for event in events if event["event"] == "begun")
    return [_judged(record, found[index], device) for index, record in enumerate(taken)]


def _judged(record: Record, event: dict[str, Any], device: str) -> Checked:
    cost, recorded = event["cost"], record.measured
    if cost is None:
        return Checked(record, None, event["reason"])
    if device != recorded.device:
        return Checked(record, cost, f"recorded on another device, {recorded.device}")
    if abs(cost / recorded.cost - 1) > TOLERANCE[recorded.unit]:
        return Checked(record, cost, f"{cost / recorded.cost - 1:+.1%} of the recorded cost")
    return Checked(record, cost, "")
