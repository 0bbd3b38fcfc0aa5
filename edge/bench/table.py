"""The bench on the terminal, in 100 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from edge.bench.results import Bench, Row
from edge.report.costs import millions, share
from edge.report.summary import ABSENT, decibels, human_bytes, plain

COLUMNS = ("runtime", "precision", "SQNR", "instr.", "vector FMA", "modelled cycles", "of floor", "ratio", "size")


def cells(row: Row) -> tuple[str, ...]:
    """A row's figures as text, in the order of ``COLUMNS``."""
    return (
        row.runtime,
        row.precision,
        ABSENT if row.sqnr_db is None else decibels(row.sqnr_db),
        millions(row.instructions),
        millions(row.vector_fma),
        millions(row.modelled_cycles),
        share(row.share_of_floor),
        ABSENT if row.ratio is None else f"{row.ratio:.2f}",
        ABSENT if row.bytes is None else human_bytes(row.bytes),
    )


def remarks(bench: Bench) -> list[tuple[Row, str]]:
    """Rows that need words, with the words."""
    return [(row, plain(row.reason)) for row in bench.rows if row.reason]


def table(bench: Bench) -> Table:
    """The rows, and below them the reason of each that was not counted."""
    styles = {"failed": "bold red", "skipped": "yellow"}
    reasons = [
        Text.assemble((row.status, styles.get(row.status, "")), f"  {row.runtime} {row.precision}: {reason}")
        for row, reason in remarks(bench)
    ]
    result = Table(
        title=Text(f"{bench.network} on {bench.title}, one inference on an emulated {bench.core}", style="bold"),
        title_justify="left",
        caption=Text("\n").join([*reasons, Text("Modelled cycles are no time. Ratio: to the best float32 peer.")]),
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for index, heading in enumerate(COLUMNS):
        result.add_column(heading.replace(" ", "\n", 1), justify="right" if index > 1 else "left")
    for row in bench.rows:
        result.add_row(*cells(row), style=styles.get(row.status, ""))
    return result
