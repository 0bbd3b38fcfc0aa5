"""The table of networks: what is kept of the exports for a target, one row a network and format.

It is written into a page between two marks, so that the figures in the documentation are a command's and nobody's
typing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge import textfile
from edge.errors import InputError
from edge.formats import FORMATS, PRECISIONS
from edge.report.kept import Figures
from edge.report.summary import ABSENT, Manifest, decibels, human_bytes, human_seconds, percent

BEGIN, END = "<!-- networks: begin -->", "<!-- networks: end -->"
HEADINGS = (
    "network",
    "MACs",
    "format",
    "precision",
    "size",
    "SQNR, host",
    "SQNR, target",
    "top-1",
    "taken over",
    "transposes",
    "made in",
    "memory",
    "commit",
)
SEPARATOR = " · "


@dataclass(frozen=True)
class _Cell:
    """One precision of one format: what of it goes into the table."""

    precision: str
    size: str
    host: str
    target: str
    top1: str
    taken_over: str
    transposes: str
    made_in: str
    memory: str
    commit: str


def _family(model: str) -> str:
    return model.partition("_")[0]


def table(found: Iterable[Figures]) -> str:
    """The table in Markdown: one row for each network and format, its precisions side by side.

    Args:
        found: the figures of each network; the smallest network of a family comes first.
    """
    lines = [_row(HEADINGS), _row(["---"] * 4 + ["---:"] * (len(HEADINGS) - 4))]
    for figures in sorted(found, key=lambda figures: (_family(figures["model"]), figures["network"]["macs"])):
        head = (figures["model"], f"{figures['network']['macs'] / 1e9:.3g} G")
        for name, made in ((name, figures["formats"][name]) for name in FORMATS if name in figures["formats"]):
            cells = [cell for p in PRECISIONS if p in made and (cell := _cell(p, made[p]))]
            if cells:
                *columns, commits = zip(*(vars(cell).values() for cell in cells), strict=True)
                columns.append(commits if len(set(commits)) > 1 else commits[:1])
                lines.append(_row([*head, FORMATS[name].title, *map(_joined, columns)]))
                head = ("", "")
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _joined(column: Iterable[str]) -> str:
    texts = list(column)
    return ABSENT if set(texts) == {ABSENT} else SEPARATOR.join(texts)


def _cell(precision: str, made: Figures) -> _Cell | None:
    """What the artifacts of one precision say together: a library for the host stands for the target's on the host."""
    entries: list[Manifest] = made["artifacts"]
    if not any(entry["file"] or entry["checks"][0]["status"] == "failed" for entry in entries):
        return None
    shipped = [entry for entry in entries if entry["file"] and entry["runs_on"] != "host"]
    checks = [check for entry in entries for check in entry["checks"]]
    host = [check for check in checks if check["device"] == "host"]
    # The host's, which runs all samples, wherever it ran the artifact.
    top1 = _top1(host) or _top1(checks)
    notes: dict[str, Any] = {key: value for entry in entries if entry["file"] for key, value in entry["notes"].items()}
    taken, transposes = _taken_over(notes), notes.get("transposes")
    return _Cell(
        precision,
        human_bytes(shipped[0]["bytes"]) if shipped else ABSENT,
        _sqnr(host),
        _sqnr([check for check in checks if check["device"] not in ("host", "")]),
        percent(min(top1)) if top1 else ABSENT,
        percent(taken) if taken is not None else ABSENT,
        str(transposes) if transposes is not None else ABSENT,
        human_seconds(entries[0]["seconds"]),
        human_bytes(entries[0]["peak_memory_mb"] * 1e6),
        made["environment"]["commit"] or ABSENT,
    )


def _top1(checks: Iterable[Manifest]) -> list[float]:
    return [check["top1"] for check in checks if check.get("top1") is not None]


def _taken_over(notes: dict[str, Any]) -> float | None:
    """The share of operators that ExecuTorch's delegate takes, or of TVM's kernels that are made from our templates."""
    counts = {name: count for name, count in notes.items() if isinstance(count, int)}
    ours = sum(count for name, count in counts.items() if name.endswith(" kernels"))
    plain = sum(count for name, count in counts.items() if name.startswith("kernels "))
    share = notes.get("delegated_share")
    return ours / (ours + plain) if ours else None if share is None else float(share)


def _sqnr(checks: list[Manifest]) -> str:
    """The worst check's figure; the word where there is none, and beside it where it is not passed."""
    measured = [check for check in checks if check.get("sqnr_db") is not None]
    if not measured:
        return next((check["status"] for check in checks), ABSENT)
    worst = min(measured, key=lambda check: check["sqnr_db"])
    figure = decibels(worst["sqnr_db"]).removesuffix(" dB")
    return figure if all(check["status"] == "passed" for check in checks) else f"{figure} **failed**"


def put(text: str, page: Path) -> None:
    """Write a text between the marks of a page, in one step.

    Raises:
        InputError: the page has no such marks.
    """
    content = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(
            f"{page} has no place for the table",
            stage="report",
            next_step=f"put the lines {BEGIN} and {END} where it belongs",
        )
    textfile.write(f"{before}{begin}\n{text}\n{end}{after}", page)
