"""Tuning records: which choice was the fastest for which problem on which target. Data of the repository.

``targets/records/<target>.json`` holds one record for each problem, sorted by its words, a few lines each, so that a
difference can be read. A record counts for its own target only, and only if the target could have measured it: on its
emulated core, on the device itself, or on this host if the target is of its architecture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge import textfile
from edge.errors import InputError
from edge.kernels.core import Core
from edge.kernels.template import Choice, Problem, Template
from edge.targets import Target
from edge.targets.profile import FOLDER as TARGETS

FOLDER = TARGETS.resolve() / "records"


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measurement(_Data):
    """What a choice cost, and how that was measured.

    Attributes:
        runner: "emulated", "host" or "rpc".
        device: what the kernel ran on, by its own name.
        unit: of the cost.
        cost: of the choice.
        default: of the choice by rule; None where it could not be measured.
        tools: that made the kernel and measured it, with their versions.
    """

    runner: Literal["emulated", "host", "rpc"]
    device: str
    unit: Literal["modelled cycles", "seconds"]
    cost: int | float = Field(gt=0)
    default: int | float | None
    tools: dict[str, str]

    @model_validator(mode="after")
    def _in_its_unit(self) -> Measurement:
        if (self.unit == "modelled cycles") != (self.runner == "emulated"):
            raise ValueError(f"{self.runner} does not measure {self.unit}")
        return self


class Record(_Data):
    """The choice for one problem.

    Attributes:
        problem: in words; equal words, equal problems.
        template: its name.
        dtype: of all arguments.
        shape: the problem's fields.
        macs: multiply-adds that the problem needs; 0 where nobody counts them.
        bytes: the least traffic with memory.
        choice: the choice's fields.
        measured: how.
    """

    problem: str
    template: str
    dtype: Literal["float32"] = "float32"
    shape: dict[str, Any]
    macs: int = Field(ge=0)
    bytes: int = Field(gt=0)
    choice: dict[str, Any]
    measured: Measurement


class Records(_Data):
    """All records of one target."""

    target: str
    records: tuple[Record, ...]

    @model_validator(mode="after")
    def _one_a_problem(self) -> Records:
        names = [(record.template, record.problem) for record in self.records]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two records for {twice[0][1]}")
        return self

    def find(self, template: str, problem: Problem) -> Record | None:
        """The record for a problem."""
        data = json.loads(json.dumps(problem.to_json()))
        return next((r for r in self.records if r.template == template and r.shape == data), None)


def path(target: str) -> Path:
    """The file with a target's records; it may not exist."""
    return FOLDER / f"{target}.json"


def read(file: Path) -> Records:
    """The records in a file.

    Raises:
        InputError: the file is missing, or is no file of records.
    """
    try:
        return Records.model_validate_json(file.read_bytes())
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"holds no tuning records: {where + ': ' if where else ''}{first['msg']}"
    raise InputError(
        f"{file.name} {problem}", stage="tune", next_step="write it with `edge tune` or `edge records merge`"
    )


def write(records: Records, file: Path) -> None:
    """Write records, sorted, a few lines each; the same records, the same bytes."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    blocks = []
    for record in sorted(records.records, key=lambda record: (record.template, _natural(record.problem))):
        fields = [f"   {line(name)}: {line(value)}" for name, value in record.model_dump(mode="json").items()]
        blocks.append("  {\n" + ",\n".join(fields) + "\n  }")
    text = f'{{\n "target": {line(records.target)},\n "records": [\n' + ",\n".join(blocks) + "\n ]\n}\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    textfile.write(text, file)


def _natural(words: str) -> list[tuple[int, str]]:
    """Sorts 9 before 10."""
    parts = "".join(c if c.isdigit() else f" {c} " for c in words).split()
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def merge(target: Target, sets: Iterable[Records]) -> Records:
    """One set of records for a target: of several for one problem, a later set's replaces an earlier's.

    Records that were measured in the same way are compared instead, and the one that costs less stays.

    Raises:
        InputError: a set is another target's, or a record is of a kind of device that this target is not.
    """
    best: dict[tuple[str, str], Record] = {}
    for records in sets:
        if records.target != target.name:
            raise _foreign(target, f"records of {records.target} are no records of {target.name}")
        for record in records.records:
            if reason := obstacle(target, record):
                raise _foreign(target, f"{record.problem}: {reason}")
            name = (record.template, record.problem)
            if name not in best or not _better(best[name].measured, record.measured):
                best[name] = record
    return Records(target=target.name, records=tuple(best.values()))


def merge_into(target: Target, files: Iterable[Path], into: Path | None = None) -> Records:
    """``edge records merge``: add the records of some files to a target's, see ``merge``.

    Args:
        target: whose records they are.
        files: with records.
        into: the file that they are added to; None for the target's own.

    Returns:
        All records of that file, as written.

    Raises:
        InputError: a file cannot be read, or its records are not the target's.
    """
    file = into or path(target.name)
    merged = merge(target, [read(one) for one in (*([file] if file.is_file() else []), *files)])
    write(merged, file)
    return merged


def _better(old: Measurement, new: Measurement) -> bool:
    """Whether the old one stays."""
    comparable = (old.runner, old.device, old.tools) == (new.runner, new.device, new.tools)
    return comparable and old.cost < new.cost


def _foreign(target: Target, message: str) -> InputError:
    return InputError(message, stage="tune", target=target.name, next_step="tune for this target: `edge tune`")


def obstacle(target: Target, record: Record) -> str:
    """Why a record cannot be the target's; empty if it can: records never come from another kind of device."""
    if record.measured.runner != "emulated":
        return ""
    if target.emulated is None or target.emulated.cpu not in record.measured.device.split(",")[0].split():
        return f"it was measured on {record.measured.device}, which is not this target's core"
    return ""


def chosen(
    target: Target,
    template: Template[Any, Any],
    problem: Problem,
    refuse: Callable[[str], None] = lambda reason: None,
) -> Choice | None:
    """The recorded choice for a problem; None where there is none, and the template's default is to be taken.

    Args:
        target: whose records count.
        template: of the problem.
        problem: what is computed.
        refuse: called with the reason if there is a record that cannot be used: it was measured on another kind of
            device, or the template has changed since.

    Raises:
        InputError: the target's file of records is broken.
    """
    file = path(target.name)
    if not file.is_file():
        return None
    record = _read_once(file, file.stat().st_mtime_ns).find(template.name, problem)
    if record is None:
        return None
    if reason := obstacle(target, record) or refusal(template, problem, record.choice, Core.of(target)):
        refuse(f"the record for {problem.key} is refused: {reason}")
        return None
    return template.choices.from_json(record.choice)


def refusal(template: Template[Any, Any], problem: Problem, choice: dict[str, Any], core: Core) -> str:
    """Why a recorded choice is none of the template's any more; empty if it is."""
    try:
        known = template.choices.from_json(choice)
    except TypeError:
        return f"the template's choices have no longer the fields {', '.join(choice)}"
    return "" if known in template.space(problem, core) else f"the template's space has no longer {choice}"


@lru_cache(maxsize=8)
def _read_once(file: Path, _: int) -> Records:
    return read(file)
