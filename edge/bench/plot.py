"""The bench as a drawing: a bar an artifact, as long as its figure, with its spread, and the core's floor as a line."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from edge.bench import quantities
from edge.bench.quantities import Quantity
from edge.bench.results import YARDSTICK, Bench, Row, best_peer

TEXT, MUTED, LINE, FAILED = "#191c20", "#59636e", "#dce0e5", "#b3211c"
COLOURS = {"fp32": "#0b62b0", "fp16": "#b85c00", "int8": "#00805f"}
"""By precision; these and the inks are those of the report in its light form."""

STYLE: list[str | Path | dict[str, Any]] = [
    "default",
    {
        "font.family": "DejaVu Sans",
        "font.size": 12,
        "text.parse_math": False,
        "text.color": TEXT,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "xtick.color": LINE,
        "xtick.labelcolor": MUTED,
        "legend.frameon": False,
    },
]
"""Whatever the user's own matplotlib settings are."""

WIDTH, ROW, TOP, BOTTOM = 960, 34, 84, 56
"""In pixels at 72 to the inch: of the drawing, of a row, above the rows and below them."""

LEFT, RIGHT = 300, 150
SHARPNESS = 2

LONGEST = 2.5
"""Bars end at so many times the best peer; what is longer is cut, so that the peers can be told apart."""


def draw(bench: Bench, file: Path) -> None:
    """Write the drawing as a PNG."""
    with matplotlib.style.context(STYLE):
        height = TOP + ROW * len(bench.rows) + BOTTOM
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        axes = figure.add_axes(
            (LEFT / WIDTH, BOTTOM / height, (WIDTH - LEFT - RIGHT) / WIDTH, (height - TOP - BOTTOM) / height)
        )
        _frame(axes, bench)
        for index, row in enumerate(bench.rows):
            _row(axes, index, row, quantities.of(bench), _end(bench))
        _floor(axes, bench)
        title = f"{bench.network} on {bench.title}: one warm inference, one thread, {bench.core}"
        figure.text(16 / WIDTH, 1 - 24 / height, title, fontweight="bold", va="center")
        patches = [
            Patch(color=COLOURS[p], label=p)
            for p in COLOURS
            if p in {row.precision for row in bench.rows if row.figure(bench.by)}
        ]
        figure.legend(
            handles=patches, loc="center left", bbox_to_anchor=(8 / WIDTH, 1 - 54 / height), ncols=3, handlelength=1
        )
        figure.savefig(file, dpi=72 * SHARPNESS, facecolor="white", metadata={"Software": None})


def _length(row: Row, quantity: Quantity) -> float:
    """Of a row's bar, in the axis' unit."""
    return (row.figure(quantity.field) or 0) / quantity.unit


def _end(bench: Bench) -> float:
    """Where the axis ends, in its unit."""
    quantity, best = quantities.of(bench), best_peer(bench.rows, bench.by)
    longest = max((_length(row, quantity) for row in bench.rows), default=0) or 1.0
    return min(longest, LONGEST * _length(best, quantity)) if best else longest


def _frame(axes: Axes, bench: Bench) -> None:
    axes.set_xlim(0, _end(bench))
    axes.set_ylim(len(bench.rows), 0)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(length=0, pad=6)
    axes.set_xlabel(quantities.of(bench).axis)


def _row(axes: Axes, index: int, row: Row, quantity: Quantity, end: float) -> None:
    middle = index + 0.5
    columns = axes.get_yaxis_transform()  # x as a share of the axes, y in rows
    inside = WIDTH - LEFT - RIGHT
    if index:
        axes.plot(
            [(16 - LEFT) / inside, (WIDTH - LEFT - 16) / inside],
            [index, index],
            color=LINE,
            linewidth=0.5,
            transform=columns,
            clip_on=False,
            zorder=0,
        )
    axes.text((16 - LEFT) / inside, middle, f"{row.runtime}, {row.precision}", va="center", transform=columns)
    length = _length(row, quantity)
    if not length:
        words = textwrap.shorten(f"{row.status}: {row.reason}", 80, placeholder=" …")
        ink = FAILED if row.status == "failed" else MUTED
        axes.text(
            0.01,
            middle,
            words,
            color=ink,
            fontstyle="italic",
            fontsize=10,
            va="center",
            transform=columns,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
            zorder=4,
        )
        return
    axes.barh(middle, min(length, end), height=0.5, color=COLOURS.get(row.precision, MUTED))
    if length > end:
        for place in (0.95, 0.96):
            axes.plot(
                [place, place + 0.01], [middle + 0.3, middle - 0.3], color="white", linewidth=2, transform=columns
            )
    elif row.quartiles_ms:
        axes.plot(row.quartiles_ms, [middle, middle], color=TEXT, linewidth=1.2, zorder=3)
    ratio = "" if row.ratio is None else f"   {'≈ ' if row.is_doubtful else ''}{row.ratio:.2f}×"
    axes.text(
        (WIDTH - LEFT - 16) / inside,
        middle,
        f"{quantity.text(row.figure(quantity.field))}{ratio}",
        ha="right",
        va="center",
        transform=columns,
    )


def _floor(axes: Axes, bench: Bench) -> None:
    """The float32 floor, named at its top."""
    floors = [row.floor_cycles for row in bench.rows if row.precision == YARDSTICK and row.floor_cycles]
    if not floors:
        return
    floor = floors[0] / 1e6
    axes.axvline(floor, color=TEXT, linewidth=1.2, linestyle=(0, (3, 2)), zorder=3)
    axes.annotate(
        f"float32 peak of the core, {floor:,.1f} M",
        (floor, 0),
        xytext=(0, 6),
        textcoords="offset points",
        ha="center",
        color=MUTED,
        fontsize=10,
    )
