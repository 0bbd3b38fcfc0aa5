"""The two plots as inline SVG: error by artifact, size by artifact. Same lines, same bytes.

Matplotlib draws with stand-in colours, which become CSS variables of the page, so that one drawing serves light, dark
and print. Text stays text. One unit is one CSS pixel at the drawing's own width. Each plot is drawn in every layout,
and the page shows the one that its column has room for.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from edge.manifest import CAP_DB
from edge.report.summary import Line, decibels, human_bytes

_NAMES = ("text", "muted", "line", "zone", "failed", "surface", "fp32", "fp16", "int8", "other")
INKS = {name: f"#0000{index:02x}" for index, name in enumerate(_NAMES, start=1)}
"""Stand-in colour of each CSS variable ``--plot-<name>``."""

MARKERS = {"fp32": "o", "fp16": "s", "int8": "^", "other": "D"}
"""By precision, so that colour is never alone."""

LANES = {"photograph": -5, "random": 5}
"""Where a sample's dot lies, in pixels from the middle of its row; random inputs are hollow."""

STYLE: list[str | Path | dict[str, Any]] = [
    "default",
    {
        "svg.hashsalt": "edge",
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 12,
        "text.color": INKS["text"],
        "axes.edgecolor": INKS["line"],
        "axes.labelcolor": INKS["muted"],
        "xtick.color": INKS["line"],
        "xtick.labelcolor": INKS["muted"],
        "legend.frameon": False,
        "legend.handletextpad": 0.4,
        "legend.columnspacing": 1.4,
        "legend.borderaxespad": 0,
        "legend.borderpad": 0.2,
        "legend.handlelength": 1.4,
    },
]
"""Whatever the user's own matplotlib settings are."""

FLOOR_DB = -40.0
"""Lower figures are drawn here: they are all noise, and would squeeze the rest."""


@dataclass(frozen=True)
class Layout:
    """Sizes of one drawing in CSS pixels.

    Attributes:
        name: its class in the style sheet.
        width: of the whole drawing.
        beside: labels and values have columns beside the axes; else they stand above the row.
        row: height of one row.
        centre: of the dots or the bar in its row, from the row's top.
        legend: height above the axes.
        legend_columns: of the legend's second part, for what is not a precision.
    """

    name: str
    width: int
    beside: bool
    row: int
    centre: int
    legend: int
    legend_columns: int


LAYOUTS = (
    Layout(name="wide", width=960, beside=True, row=32, centre=16, legend=52, legend_columns=5),
    Layout(name="compact", width=330, beside=False, row=50, centre=34, legend=92, legend_columns=2),
)
CHARACTER = 7.4
"""Mean width of a character, in pixels."""


def _ink(line: Line) -> str:
    return line.precision if line.precision in MARKERS else "other"


def _axes(names: Sequence[str], layout: Layout, legend: int, bottom: int) -> tuple[Figure, Axes]:
    """Axes with a row a name, whose y coordinate is pixels from the top of the first row."""
    rows = layout.row * len(names)
    height = legend + rows + bottom
    figure = Figure(figsize=(layout.width / 72, height / 72))
    left = 16 + CHARACTER * max(map(len, names)) if layout.beside else 8
    right = 88 if layout.beside else 8
    inside = layout.width - left - right
    axes = figure.add_axes((left / layout.width, bottom / height, inside / layout.width, rows / height))
    axes.set_ylim(rows, 0)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(length=0, pad=6)
    return figure, axes


def _write(axes: Axes, index: int, layout: Layout, name: str, value: str, *, emphasis: bool = False) -> None:
    """Name a row at the left edge and write its figure at the right one, beside the axes or above the row."""
    top = index * layout.row
    y = top + (layout.centre if layout.beside else 12)
    edges = axes.figure.transFigure + axes.transData.inverted()
    (left, _), (right, _) = edges.transform([(0, 0), (1, 0)])
    clear = {"facecolor": INKS["surface"], "edgecolor": "none", "pad": 2}
    axes.text(left, y, name, ha="left", va="center_baseline", bbox=clear)
    axes.text(
        right,
        y,
        value,
        ha="right",
        va="center_baseline",
        color=INKS["failed" if emphasis else "text"],
        fontweight="bold" if emphasis else "normal",
        bbox=clear,
    )
    if index:
        axes.axhline(top, color=INKS["line"], linewidth=0.5, zorder=0)


def _svg(figure: Figure, name: str, layout: Layout, description: str) -> Markup:
    """The figure as an SVG element: its own identifiers, the page's colours and font, nothing from outside."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    width, height = (round(length * 72) for length in figure.get_size_inches())
    body = drawing[drawing.index(">", drawing.index("<svg")) + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r" font-family: [^;]*;", "", body)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-{layout.name}-", body)
    for ink, stand_in in INKS.items():
        body = body.replace(stand_in, f"var(--plot-{ink})")
    return Markup(
        f'<svg class="plot {layout.name}" role="img" aria-label="{escape(description)}" '
        f'viewBox="0 0 {width} {height}">{body}'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min([0.0, *values]), max([60.0, *values])
    return max(FLOOR_DB, 20 * math.floor(low / 20)), 20 * math.ceil((high + 2) / 20)


def kinds(line: Line) -> Sequence[str]:
    """What each sample of the check was, "photograph" or "random"; empty if that was not kept."""
    return (line.check.get("samples") or {}).get("kind") or ()


def _samples(line: Line) -> list[float]:
    """SQNR of each sample; of the worst alone where the samples were not kept; empty where nothing was measured."""
    worst = line.check.get("sqnr_db")
    return (line.check.get("samples") or {}).get("sqnr_db") or ([] if worst is None else [worst])


def _gate(line: Line) -> float | None:
    return (line.check.get("gate") or {}).get("sqnr_db")


def errors(lines: Sequence[Line], eager_db: float | None, layout: Layout) -> Markup:
    """SQNR of every artifact: a dot a sample, the worst ringed, the gate a line, eager PyTorch a dashed line.

    Args:
        lines: rows, from the top.
        eager_db: SQNR of eager PyTorch in float32, None if it was not measured.
        layout: one of ``LAYOUTS``.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = _axes([line.label for line in lines], layout, layout.legend, bottom=44)
        marks = [eager_db, *map(_gate, lines), *(value for line in lines for value in _samples(line))]
        low, high = _range([mark for mark in marks if mark is not None and abs(mark) < CAP_DB])
        axes.set_xlim(low, high)
        axes.set_xticks(range(int(low), int(high) + 1, 20 if layout.beside or high - low <= 160 else 40))
        axes.grid(axis="x", color=INKS["line"], linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_xlabel("SQNR against float64, dB (further right is better)")
        if eager_db is not None:
            axes.axvline(eager_db, color=INKS["muted"], linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        for index, line in enumerate(lines):
            _error_row(axes, index, line, layout, low, high)
        _legend(figure, lines, eager_db, layout)
        described = "; ".join(f"{line.label} {_outcome(line)}" for line in lines)
        return _svg(figure, "errors", layout, f"SQNR by artifact, worst sample: {described}")


def _outcome(line: Line) -> str:
    if line.sqnr.gate:
        return f"{line.sqnr.text}, {'misses' if line.sqnr.missed else 'meets'} its gate {line.sqnr.gate}"
    return line.sqnr.text if line.check.get("sqnr_db") is not None else line.status


def _error_row(axes: Axes, index: int, line: Line, layout: Layout, low: float, high: float) -> None:
    centre = index * layout.row + layout.centre
    values = _samples(line)
    if not values:
        words = f"{line.status}, {'no figures' if line.emitted else 'no file'}"
        inside = low + 0.01 * (high - low)
        _write(axes, index, layout, line.label, line.status, emphasis=line.status == "failed")
        axes.text(inside, centre, words, color=INKS["muted"], va="center_baseline", fontstyle="italic")
        return
    _write(axes, index, layout, line.label, line.sqnr.text, emphasis=line.status == "failed")
    gate = _gate(line)
    if gate is not None:
        reach = (centre - 12, centre + 12)
        axes.fill_betweenx(reach, low, gate, color=INKS["zone"], linewidth=0, zorder=0.5)
        axes.vlines(gate, *reach, color=INKS["text"], linewidth=2, zorder=2)
    ink = _ink(line)
    lanes = [LANES[kind] for kind in kinds(line)] or [0] * len(values)
    for value, lane in zip(values, lanes, strict=True):
        axes.plot(
            min(max(value, low), high),
            centre + lane,
            MARKERS[ink],
            markersize=6,
            markeredgewidth=1.2,
            color=INKS[ink],
            markerfacecolor=INKS["surface" if lane > 0 else ink],
            clip_on=False,
            zorder=3,
        )
    worst = min(range(len(values)), key=values.__getitem__)
    axes.plot(
        min(max(values[worst], low), high),
        centre + lanes[worst],
        "o",
        markersize=12,
        markeredgewidth=1.2,
        color=INKS["text"],
        markerfacecolor="none",
        clip_on=False,
        zorder=4,
    )


def _legend(figure: Figure, lines: Sequence[Line], eager_db: float | None, layout: Layout) -> None:
    def entry(marker: str, label: str, ink: str, *, face: str = "none", size: float = 7) -> Line2D:
        return Line2D(
            [], [], marker=marker, linestyle="", color=INKS[ink], markersize=size, markerfacecolor=face, label=label
        )

    precisions = [entry(MARKERS[ink], ink, ink, face=INKS[ink]) for ink in dict.fromkeys(map(_ink, lines))]
    entries = [
        entry("o", "worst sample", "text", size=11),
        Line2D([], [], marker="|", linestyle="", color=INKS["text"], markersize=13, markeredgewidth=2, label="gate"),
    ]
    if any(map(kinds, lines)):
        entries[:0] = [entry("o", "photograph", "muted", face=INKS["muted"]), entry("o", "random input", "muted")]
    if eager_db is not None:
        label = f"eager PyTorch fp32, {decibels(eager_db)}"
        entries.append(Line2D([], [], color=INKS["muted"], linewidth=1.2, linestyle=(0, (3, 2)), label=label))
    figure.legend(handles=precisions, loc="upper left", ncols=len(precisions))
    below = 1 - 24 / (72 * figure.get_figheight())
    figure.legend(handles=entries, loc="upper left", bbox_to_anchor=(0, below), ncols=layout.legend_columns)


def sizes(lines: Sequence[Line], layout: Layout) -> Markup:
    """A bar an artifact, coloured by precision; those without a file are left out.

    Args:
        lines: rows, from the top; one a file.
        layout: one of ``LAYOUTS``.
    """
    with matplotlib.style.context(STYLE):
        figure, axes = _axes([line.short for line in lines], layout, legend=4, bottom=8)
        axes.set_xlim(0, max(line.artifact["bytes"] for line in lines))
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        for index, line in enumerate(lines):
            size = line.artifact["bytes"]
            _write(axes, index, layout, line.short, human_bytes(size))
            axes.barh(index * layout.row + layout.centre, size, height=12, color=INKS[_ink(line)])
        described = "; ".join(f"{line.short} {human_bytes(line.artifact['bytes'])}" for line in lines)
        return _svg(figure, "sizes", layout, f"Size by artifact: {described}")
