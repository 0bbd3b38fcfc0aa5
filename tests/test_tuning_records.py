"""Tuning records: readable, mergeable, and never taken where they do not belong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edge import targets
from edge.errors import InputError
from edge.kernels.core import Core
from edge.kernels.depthwise import Depthwise, DepthwiseTemplate
from edge.kernels.registry import template
from edge.tuning import records
from edge.tuning.records import Measurement, Record, Records

TARGET = targets.load("cortex-a72")
TEMPLATE = DepthwiseTemplate()
PROBLEM = Depthwise(28, 28, 96, (3, 3), padding=(1, 1, 1, 1))
CHOICE = TEMPLATE.space(PROBLEM, Core.of(TARGET))[-1]
TOOLS = {"LLVM": "19"}
A72 = "QEMU cortex-a72, LLVM's model of cortex-a72"


def record(problem: Depthwise = PROBLEM, cost: float = 100.0, **changes: Any) -> Record:
    measured = {"runner": "emulated", "device": A72, "unit": "modelled cycles", "tools": TOOLS, "default": 120.0}
    fields = {"template": "depthwise", "choice": CHOICE.to_json(), **changes}
    measurement = Measurement(cost=cost, **{**measured, **fields.pop("measured", {})})
    counts = {"macs": problem.macs, "bytes": problem.bytes}
    return Record(problem=problem.key, shape=problem.to_json(), measured=measurement, **counts, **fields)


def of(*several: Record, target: str = "cortex-a72") -> Records:
    return Records(target=target, records=several)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    return tmp_path


def test_records_are_read_as_written_and_the_same_records_are_the_same_bytes(folder: Path) -> None:
    small, large = (record(Depthwise(size, size, 8, (3, 3))) for size in (9, 10))
    for order in ((small, large), (large, small)):
        records.write(of(*order), folder / "a.json")
        assert records.read(folder / "a.json") == of(small, large), "9 sorts before 10"
    text = (folder / "a.json").read_text()
    records.write(records.read(folder / "a.json"), folder / "a.json")
    assert (folder / "a.json").read_text() == text
    assert max(map(len, text.splitlines())) < 250, "a few lines each"


def test_a_record_decides_its_own_problem_and_no_other(folder: Path) -> None:
    assert records.chosen(TARGET, TEMPLATE, PROBLEM) is None, "no file"
    records.write(of(record()), records.path(TARGET.name))
    assert records.chosen(TARGET, TEMPLATE, PROBLEM) == CHOICE
    assert records.chosen(TARGET, TEMPLATE, Depthwise(28, 28, 95, (3, 3), padding=(1, 1, 1, 1))) is None
    assert records.chosen(targets.load("cortex-a76"), TEMPLATE, PROBLEM) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"choice": {"rows": 99, "columns": 1}}, r"space has no longer \{'rows': 99"),
        ({"choice": {"rows": 1, "depth": 1}}, "no longer the fields rows, depth"),
        ({"measured": {"device": "QEMU cortex-a53, LLVM's model of cortex-a53"}}, "not this target's core"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused_with_its_reason(folder: Path, changes: dict, reason: str) -> None:
    records.write(of(record(**changes)), records.path(TARGET.name))
    reasons: list[str] = []
    assert records.chosen(TARGET, TEMPLATE, PROBLEM, reasons.append) is None
    (said,) = reasons
    assert PROBLEM.key in said
    assert re.search(reason, said)


def test_the_better_of_two_alike_is_merged_and_the_later_of_two_that_do_not_compare() -> None:
    def merged(*costs: Record) -> float:
        (found,) = records.merge(TARGET, [of(r) for r in costs]).records
        return found.measured.cost

    assert merged(record(cost=100), record(cost=90)) == 90
    assert merged(record(cost=90), record(cost=100)) == 90
    newer = {"tools": {"LLVM": "20"}}
    assert merged(record(cost=90), record(cost=100, measured=newer)) == 100


def test_files_are_merged_into_the_targets_own(folder: Path) -> None:
    other = Depthwise(9, 9, 8, (3, 3))
    for name, one in (("a", record(cost=90)), ("b", record(other))):
        records.write(of(one), folder / f"{name}.json")
    records.write(of(record(cost=100)), records.path(TARGET.name))
    records.merge_into(TARGET, [folder / "a.json", folder / "b.json"])
    assert records.read(records.path(TARGET.name)) == of(record(other), record(cost=90))


def test_records_of_another_target_or_another_core_are_not_merged() -> None:
    with pytest.raises(InputError, match="records of cortex-a53 are no records of cortex-a72"):
        records.merge(TARGET, [of(record(), target="cortex-a53")])
    with pytest.raises(InputError, match="not this target's core"):
        records.merge(TARGET, [of(record(measured={"device": "QEMU cortex-a76, LLVM's model of neoverse-n1"}))])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data["records"].append(data["records"][0]), "two records for depthwise 3x3"),
        (lambda data: data["records"][0]["measured"].update(unit="seconds"), "emulated does not measure seconds"),
        (lambda data: data["records"][0]["measured"].update(cost=0), "greater than 0"),
        (lambda data: data["records"][0].update(note="mine"), "Extra inputs are not permitted"),
    ],
)
def test_a_broken_file_is_an_error_that_names_the_field(tmp_path: Path, spoil: Any, message: str) -> None:
    file = tmp_path / "cortex-a72.json"
    records.write(of(record()), file)
    data = json.loads(file.read_text())
    spoil(data)
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message):
        records.read(file)


def test_the_records_of_the_repository_are_sound() -> None:
    """Each is the target's own, written the way ``edge tune`` writes, and its choice is one its template still has."""
    for file in sorted(records.FOLDER.glob("*.json")):
        target, known = targets.load(file.stem), records.read(file)
        assert known == records.merge(target, [known]), file
        for one in known.records:
            kind = template(one.template)
            problem = kind.problems.from_json(one.shape)
            assert (problem.key, problem.macs, problem.bytes) == (one.problem, one.macs, one.bytes)
            assert records.refusal(kind, problem, one.choice, Core.of(target)) == ""
