"""Tuning from end to end: the same twice, resumed where it stopped, one fault one candidate, records that hold."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edge import targets
from edge.errors import ExportError, InputError, UsageError
from edge.kernels.core import Core
from edge.kernels.depthwise import Depthwise
from edge.progress import Reporter
from edge.tuning import check, port, records, tune
from edge.tuning.runners import CLOSE
from edge.tuning.task import Task
from edge.tuning.tune import Plan

pytestmark = pytest.mark.slow

A72, A76, HOST = targets.load("cortex-a72"), targets.load("cortex-a76"), targets.load("x86-64")
PROBLEMS = (Depthwise(6, 7, 5, (3, 3), padding=(1, 1, 1, 1)), Depthwise(9, 9, 8, (3, 3), stride=2, activation="relu"))
BUDGET = 6


def tasks(*problems: Depthwise) -> list[dict[str, Any]]:
    return [{"template": "depthwise", "problem": problem.to_json()} for problem in problems]


def run(plan: Plan, *problems: Depthwise) -> str:
    """What a person sees of one run of the tuner."""
    seen = io.StringIO()
    tune.tune(plan, tasks(*problems), Reporter(Console(file=seen, width=200)))
    return seen.getvalue()


@pytest.fixture
def journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tune, "JOURNALS", tmp_path / "journals")
    monkeypatch.setattr(records, "FOLDER", tmp_path / "records")
    return tmp_path / "journals"


def test_the_same_twice_from_nothing_and_nothing_is_measured_again(journals: Path) -> None:
    file, journal = records.path("cortex-a72"), journals / "cortex-a72.jsonl"
    plan = Plan(A72, "emulated", budget=BUDGET)
    seen = run(plan, *PROBLEMS)
    first, measured = file.read_text(), journal.read_text()
    for problem, record in zip(PROBLEMS, records.read(file).records, strict=True):
        assert f"{problem.key}: {record.measured.cost:,.0f} modelled cycles" in seen
        assert record.measured.default is not None
        # Of choices this close, the one that moves the fewest cache lines is recorded.
        assert record.measured.cost <= record.measured.default * (1 + CLOSE)

    file.unlink()
    run(plan, *PROBLEMS)
    assert (file.read_text(), journal.read_text()) == (first, measured), "all of it was in the journal"

    file.unlink()
    run(Plan(A72, "emulated", budget=BUDGET, jobs=1, fresh=True), *PROBLEMS)
    assert file.read_text() == first, "to the digit, however many cores measure"

    # Interrupted: half of the journal is there, its last line cut off.
    journal.write_text(measured[: len(measured) // 2])
    file.unlink()
    run(plan, *PROBLEMS)
    assert file.read_text() == first
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines() if line.endswith("}")]
    assert len(set(keys)) == len(measured.splitlines())

    # A sample of what was written is rebuilt and gives the same digits; a record that was tampered with does not.
    seen_records = records.read(file)
    found = check.check(A72, "emulated", 9, 0, Reporter(Console(file=io.StringIO())))
    assert [(one.record, one.cost, one.reason) for one in found] == [
        (record, record.measured.cost, "") for record in seen_records.records
    ]
    data = json.loads(file.read_text())
    data["records"][0]["measured"]["cost"] *= 0.9
    data["records"][1]["choice"]["columns"] = 99
    file.write_text(json.dumps(data))
    reasons = [one.reason for one in check.check(A72, "emulated", 9, 0, Reporter(Console(file=io.StringIO())))]
    assert reasons[0] == "+11.1% of the recorded cost"
    assert "space has no longer" in reasons[1]


def test_on_the_host_time_is_measured_and_the_best_is_recorded(journals: Path) -> None:
    run(Plan(HOST, "host", budget=4), PROBLEMS[0])
    (record,) = records.read(records.path("x86-64")).records
    assert record.measured.unit == "seconds"
    assert 1e-8 < record.measured.cost < 1e-3
    assert record.choice in [choice.to_json() for choice in Task("depthwise", PROBLEMS[0], Core.of(HOST)).space]


def test_what_cannot_be_tuned_says_why(journals: Path) -> None:
    with pytest.raises(ExportError, match="its core is not emulated"):
        run(Plan(HOST, "emulated"), PROBLEMS[0])
    with pytest.raises(ExportError, match=r"no board can be had at rpc://127.0.0.1:9/pi"):
        run(Plan(A72, "rpc://127.0.0.1:9/pi"), PROBLEMS[0])
    with pytest.raises(ExportError, match="this host is x86_64, the target aarch64"):
        run(Plan(A72, "host"), PROBLEMS[0])
    run(Plan(HOST, "host", budget=1), PROBLEMS[0])
    with pytest.raises(UsageError, match="no record was measured by the runner emulated"):
        check.check(HOST, "emulated", 1, 0, Reporter(Console(file=io.StringIO())))


def test_another_targets_problems_are_tuned_from_its_choices_and_only_those_that_are_missing(journals: Path) -> None:
    run(Plan(A72, "emulated", budget=BUDGET), *PROBLEMS)
    run(Plan(A76, "emulated", budget=1), PROBLEMS[0])
    hints = {record.problem: record.choice for record in records.read(records.path("cortex-a72")).records}

    seen = io.StringIO()
    ported = port.port(Plan(A76, "emulated", budget=2), "cortex-a72", Reporter(Console(file=seen, width=200)))

    assert [record.problem for record in ported.records] == [problem.key for problem in PROBLEMS]
    assert f"{PROBLEMS[1].key}: 2 of" in seen.getvalue()
    assert f"{PROBLEMS[0].key}: 2 of" not in seen.getvalue(), "it has a record already"
    found = ported.records[1]
    task = Task("depthwise", PROBLEMS[1], Core.of(A76))
    assert found.choice in (hints[PROBLEMS[1].key], task.space[task.default].to_json())
    assert found.measured.device.startswith("QEMU cortex-a76")

    with pytest.raises(InputError, match="cannot be ported to itself"):
        port.port(Plan(A76, "emulated"), "cortex-a76", Reporter(Console(file=io.StringIO())))
    with pytest.raises(InputError, match="cannot be read"):
        port.port(Plan(A76, "emulated"), "cortex-a53", Reporter(Console(file=io.StringIO())))
