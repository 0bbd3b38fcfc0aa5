"""The bench on the terminal, in 100 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from edge.bench import quantities
from edge.bench.results import Bench, Row
from edge.report.summary import plain


def headings(bench: Bench) -> tuple[str, ...]:
    """Of the columns."""
    return tuple(column.heading for column in quantities.of(bench).columns)


def cells(bench: Bench, row: Row) -> tuple[str, ...]:
    """A row's figures as text, in the order of the headings."""
    return tuple(column.cell(row) for column in quantities.of(bench).columns)


def remarks(bench: Bench) -> list[tuple[Row, str]]:
    """Rows that need words, with the words."""
    return [(row, plain(row.reason)) for row in bench.rows if row.reason]


def table(bench: Bench) -> Table:
    """The rows, and below them the reason of each that was not measured."""
    styles = {"failed": "bold red", "skipped": "yellow"}
    reasons = [
        Text.assemble((row.status, styles.get(row.status, "")), f"  {row.runtime} {row.precision}: {reason}")
        for row, reason in remarks(bench)
    ]
    result = Table(
        title=Text(f"{bench.network} on {bench.title}, one inference on {bench.core}", style="bold"),
        title_justify="left",
        caption=Text("\n").join([*reasons, Text(quantities.of(bench).caption)]),
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for index, heading in enumerate(headings(bench)):
        result.add_column(heading.replace(" ", "\n", 1), justify="right" if index > 1 else "left")
    for row in bench.rows:
        result.add_row(*cells(bench, row), style=styles.get(row.status, ""))
    return result
