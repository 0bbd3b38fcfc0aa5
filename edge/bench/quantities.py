"""What rows can be compared by, and how each is written: one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge.bench.results import Bench, Row
from edge.report.costs import millions, share
from edge.report.summary import ABSENT, decibels, human_bytes


@dataclass(frozen=True)
class Column:
    """Of the table: its heading, and how a row's cell is written."""

    heading: str
    cell: Callable[[Row], str]


@dataclass(frozen=True)
class Quantity:
    """What rows are compared by.

    Attributes:
        field: of ``Row``.
        text: how a figure is written.
        unit: the drawing's axis is in multiples of it.
        axis: the axis' label.
        columns: of the table.
        caption: what the figures are not, and what the ratio means.
        drawn: what the drawing shows, in a few words.
    """

    field: str
    text: Callable[[float | None], str]
    unit: float
    axis: str
    columns: tuple[Column, ...]
    caption: str
    drawn: str


def milliseconds(time: float | None) -> str:
    """Three digits: 4.02 ms."""
    return ABSENT if time is None else f"{_digits(time)} ms"


def _digits(time: float | None) -> str:
    return ABSENT if time is None else f"{time:.{2 if time < 10 else 1 if time < 100 else 0}f}"


def _range(ends: tuple[float, float] | None) -> str:
    return ABSENT if ends is None else "–".join(map(_digits, ends))


def _ratio(row: Row) -> str:
    """≈ where the spread hides the difference from the best peer."""
    return ABSENT if row.ratio is None else f"{'≈ ' if row.is_doubtful else ''}{row.ratio:.2f}"


_FIRST = (
    Column("runtime", lambda row: row.runtime),
    Column("precision", lambda row: row.precision),
    Column("SQNR", lambda row: ABSENT if row.sqnr_db is None else decibels(row.sqnr_db)),
)
QUANTITIES: dict[str, Quantity] = {
    quantity.field: quantity
    for quantity in (
        Quantity(
            field="modelled_cycles",
            text=millions,
            unit=1e6,
            axis="modelled cycles in millions (no time)",
            columns=(
                *_FIRST,
                Column("instr.", lambda row: millions(row.instructions)),
                Column("vector FMA", lambda row: millions(row.vector_fma)),
                Column("modelled cycles", lambda row: millions(row.modelled_cycles)),
                Column("of floor", lambda row: share(row.share_of_floor)),
                Column("ratio", _ratio),
                Column("size", lambda row: ABSENT if row.bytes is None else human_bytes(row.bytes)),
            ),
            caption="Modelled cycles are no time. Ratio: to the best float32 peer.",
            drawn="Modelled cycles by runtime",
        ),
        Quantity(
            field="median_ms",
            text=milliseconds,
            unit=1,
            axis="processor time in milliseconds; the line spans the middle half of the rounds",
            columns=(
                *_FIRST,
                Column("vectors", lambda row: row.vectors or ABSENT),
                Column("median ms", lambda row: _digits(row.median_ms)),
                Column("quartiles ms", lambda row: _range(row.quartiles_ms)),
                Column("wall ms", lambda row: _digits(row.wall_ms)),
                Column("GFLOP/s", lambda row: ABSENT if row.gflops is None else f"{row.gflops:.0f}"),
                Column("of peak", lambda row: ABSENT if row.share_of_floor is None else f"{row.share_of_floor:.0%}"),
                Column("ratio", _ratio),
                Column("95 %", lambda row: _range(row.ratio_interval)),
            ),
            caption="Ratio: to the best float32 peer; ≈: the spread hides which of the two is faster.",
            drawn="Time by runtime",
        ),
    )
}


def of(bench: Bench) -> Quantity:
    """What its rows are compared by."""
    return QUANTITIES[bench.by]


def verdict(row: Row, by: str) -> str:
    """In a few words: the figure, or why there is none."""
    figure = row.figure(by)
    return f"{row.status}: {row.reason}" if figure is None else QUANTITIES[by].text(figure)
