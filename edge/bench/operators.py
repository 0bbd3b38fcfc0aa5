"""``make bench-ops``: FasterNet's Table 1 in our terms, each operator with the best kernel we have for it.

The table compares operators by floating-point operations a second: a cheap operator that computes slowly is no gain.
Theirs are stacks of ten layers in other people's kernels. Here both sides are tuned: a dense 3x3 convolution, the same
in 16 groups, depthwise, and partial convolution of a quarter of the channels, by itself and with the pointwise
convolution that follows it in FasterNet, on the four feature sizes of the paper; and a kernel that reaches 51 pixels:
dense depthwise, ours and the best peer's, a cross of two strips, and the shift-wise operator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

from edge.bench.dense_peer import DensePeer, dense_peer
from edge.bench.plot import LINE, MUTED, STYLE
from edge.progress import Reporter
from edge.targets import Target
from edge.tuning.records import Record, Records
from edge.tuning.tune import Plan, tune

SIZES = ((96, 56), (192, 28), (384, 14), (768, 7))
"""Channels, and side of the image: the paper's."""
GROUPS, PARTS, EXPANSION = 16, 4, 2
REACH, STRIP, GHOSTS = 51, 5, 22
"""Of the large kernels: their side, the width of a strip, and how many channels the shift-wise one passes on."""
PAPER = {"GPU": 10.5, "CPU": 6.2, "ARM": 22.8}
"""FLOPS of partial convolution by those of depthwise, FasterNet's Table 1."""

UNKNOWN = (
    "Modelled cycles know no caches. The fewer operations an operator has for a byte, the more a real core waits for "
    "memory: that part of what the paper measured is not in this table."
)

COLOURS = {
    "dense 3x3": "#59636e",
    "16 groups 3x3": "#b85c00",
    "depthwise 3x3": "#b3211c",
    "partial 3x3": "#0b62b0",
    "partial + pointwise": "#6f9fd0",
    "depthwise 51x51": "#b3211c",
    "peer's depthwise 51x51": "#59636e",
    "cross 51x5 + 5x51": "#b85c00",
    "shift-wise 51": "#0b62b0",
}

Task = dict[str, Any]


@dataclass(frozen=True)
class Operator:
    """One operator on one feature size, as the kernels that compute it one after the other.

    Attributes:
        runtime: that computes it, where its kernels are not ours.
    """

    name: str
    channels: int
    side: int
    kernels: tuple[Task, ...]
    runtime: str = ""


@dataclass(frozen=True)
class Row:
    """An operator's figures.

    Attributes:
        cost: modelled cycles or seconds, of its best kernels.
        macs: multiply-adds that its formula needs.
        bytes: the least traffic with memory.
    """

    operator: Operator
    cost: float
    macs: int
    bytes: int

    @property
    def speed(self) -> float:
        """Floating-point operations in a unit of the cost, a multiply-add counting as two."""
        return 2 * self.macs / self.cost

    @property
    def title(self) -> str:
        """The operator, and whose it is where it is not ours."""
        return f"depthwise {REACH}x{REACH}, {self.operator.runtime}" if self.operator.runtime else self.operator.name


def operators() -> tuple[Operator, ...]:
    """Those of the table, in its order."""
    small = [operator for channels, side in SIZES for operator in _small(channels, side)]
    return (*small, *_large(*SIZES[0]))


def _small(channels: int, side: int) -> tuple[Operator, ...]:
    image = {"height": side, "width": side, "channels": channels}
    partial = {**image, "kernel": 3}
    depthwise = {**image, "kernel": [3, 3], "padding": [1, 1, 1, 1]}
    kernels = {
        "dense 3x3": {"template": "partial", "problem": {**partial, "convolved": channels}},
        "16 groups 3x3": {"template": "grouped", "problem": {**image, "groups": GROUPS}},
        "depthwise 3x3": {"template": "depthwise", "problem": depthwise},
        "partial 3x3": {"template": "partial", "problem": {**partial, "convolved": channels // PARTS}},
    }
    product = {"rows": side**2, "inputs": channels, "outputs": EXPANSION * channels, "partial": channels // PARTS}
    pointwise = {"template": "pointwise", "problem": {**product, "bias": True, "activation": "gelu"}}
    return (
        *(Operator(name, channels, side, (kernel,)) for name, kernel in kernels.items()),
        Operator("partial + pointwise", channels, side, (kernels["partial 3x3"], pointwise)),
    )


def _large(channels: int, side: int) -> tuple[Operator, ...]:
    image = {"height": side, "width": side, "channels": channels}
    reach = [-(REACH // 2), REACH // 2]

    def depthwise(rows: int, columns: int) -> Task:
        padding = [rows // 2, columns // 2, rows // 2, columns // 2]
        return {"template": "large_kernel", "problem": {**image, "kernel": [rows, columns], "padding": padding}}

    shiftwise = {**image, "ghosts": list(range(GHOSTS)), "across": reach, "down": reach}
    return (
        Operator("depthwise 51x51", channels, side, (depthwise(REACH, REACH),)),
        Operator("cross 51x5 + 5x51", channels, side, (depthwise(REACH, STRIP), depthwise(STRIP, REACH))),
        Operator("shift-wise 51", channels, side, ({"template": "shiftwise", "problem": shiftwise},)),
    )


def bench(plan: Plan, folder: Path, out: Path, reporter: Reporter) -> Path:
    """Tune every operator for a target, keep the records, compare the peers on the dense kernel, and write the page.

    Args:
        plan: target and runner.
        folder: of the documents.
        out: the folder for the peers' artifacts.
        reporter: shows progress.

    Returns:
        The page.

    Raises:
        EdgeError: see ``edge.tuning.tune`` and ``edge.bench.dense_peer``.
    """
    kernels = {repr(kernel): kernel for operator in operators() for kernel in operator.kernels}
    records = tune(plan, list(kernels.values()), reporter)
    peer = dense_peer(plan.target, *SIZES[0], REACH, out, reporter)
    return write(plan, records, peer, folder)


def write(plan: Plan, records: Records, peer: DensePeer, folder: Path) -> Path:
    """Write the page and its drawing from records that have every operator's kernels; the page's path."""
    found = operators()
    rows = [_row(operator, records) for operator in found]
    (ours,) = (row for row in rows if row.operator.name == "depthwise 51x51")
    theirs = replace(ours.operator, name="peer's depthwise 51x51", runtime=peer.runtime)
    rows.insert(rows.index(ours), replace(ours, operator=theirs, cost=peer.cost))
    page = folder / f"operators-{plan.target.name}.md"
    drawing = page.with_suffix(".png")
    folder.mkdir(parents=True, exist_ok=True)
    method = _record(found[0].kernels[0], records).measured
    draw(rows, plan.target, method.unit, drawing)
    page.write_text(text(rows, plan, method.unit, method.device, drawing.name), encoding="utf-8")
    return page


def _record(kernel: Task, records: Records) -> Record:
    """The record of a kernel: its problem may leave fields to their defaults, the record has them all."""
    wanted = kernel["problem"]
    return next(
        record
        for record in records.records
        if record.template == kernel["template"] and wanted == {name: record.shape.get(name) for name in wanted}
    )


def _row(operator: Operator, records: Records) -> Row:
    found = [_record(kernel, records) for kernel in operator.kernels]
    return Row(
        operator,
        sum(record.measured.cost for record in found),
        sum(record.macs for record in found),
        sum(record.bytes for record in found),
    )


def text(rows: list[Row], plan: Plan, unit: str, device: str, drawing: str) -> str:
    """The page, as Markdown."""
    target = plan.target
    modelled = unit == "modelled cycles"
    speed, cost = ("FLOP a cycle", "modelled cycles") if modelled else ("GFLOP/s", "µs")
    moved = "bytes a cycle" if modelled else "GB/s"
    caches = "weights in no cache" if plan.runner == "host" else "caches warm"
    head = ["operator", "feature map", "MFLOP", cost, speed, *(["of peak"] if modelled else []), "MB", moved]
    lines = [
        f"# Operators on {target.title}: floating-point operations are not all equal",
        "",
        f"![{speed} by operator]({drawing})",
        "",
        f"| {' | '.join(head)} |",
        f"| --- | --- |{' ---: |' * (len(head) - 2)}",
    ]
    for row in rows:
        size = f"{row.operator.channels} × {row.operator.side}²"
        figures = [
            f"{2 * row.macs / 1e6:,.1f}",
            f"{row.cost:,.0f}" if modelled else f"{row.cost * 1e6:,.1f}",
            f"{row.speed:.2f}" if modelled else f"{row.speed / 1e9:.1f}",
            *([f"{row.speed / target.core.peak_flop_per_cycle['fp32']:.1%}"] if modelled else []),
            f"{row.bytes / 1e6:.2f}",
            f"{row.bytes / row.cost:.2f}" if modelled else f"{row.bytes / row.cost / 1e9:.1f}",
        ]
        lines.append(f"| {' | '.join([row.title, size, *figures])} |")
    lines += [
        "",
        f"Each operator by the best kernel we have for it, on one thread, measured on {device}, {caches}.",
        "FLOP counts are those of the operators' formulas, two for a multiply-add: a kernel that needs fewer, by a "
        f"transform, can go beyond its share. MB is the least traffic: every input, weight and output once; {moved}, "
        "what a memory has to deliver for this speed. A partial and a pointwise convolution are two kernels, of which "
        "the second reads the first's result and the rest of the image where they lie.",
        *([UNKNOWN] if modelled else []),
        "",
        *findings(rows),
        *([fusion(rows, target), binding(rows)] if modelled else []),
        "",
        f"Made by `make bench-ops TARGET={target.name} RUNNER={plan.runner} BUDGET={plan.budget}`.",
        "",
    ]
    return "\n".join(lines)


def findings(rows: list[Row]) -> list[str]:
    """What the paper's comparison becomes, and what reach costs, as list items."""
    by = {(row.operator.name, row.operator.side): row for row in rows}
    ratios = [by["partial 3x3", side].speed / by["depthwise 3x3", side].speed for _, side in SIZES]
    paper = ", ".join(f"{ratio:g} on {device}" for device, ratio in PAPER.items())
    saved = [by["depthwise 3x3", side].cost / by["partial 3x3", side].cost for _, side in SIZES]
    side = SIZES[0][1]
    names = ("depthwise 51x51", "peer's depthwise 51x51", "cross 51x5 + 5x51", "shift-wise 51")
    dense, peer, cross, shift = (by[name, side] for name in names)
    return [
        f"- Partial convolution computes {min(ratios):.2f} to {max(ratios):.2f} times as many operations a second as "
        f"depthwise convolution, when both are tuned; the paper has {paper}. It takes "
        f"{1 / max(saved):.2f} to {1 / min(saved):.2f} times depthwise's time, and mixes channels, which depthwise "
        "does not.",
        f"- The shift-wise operator is {peer.cost / shift.cost:.1f} times as fast as dense depthwise 51×51 through the "
        f"best peer, {peer.operator.runtime}, {dense.cost / shift.cost:.1f} times as fast as ours, and "
        f"{cross.cost / shift.cost:.2f} times as fast as the cross of two strips. The peer's figure is of a network of "
        "this one layer behind a stem that has a thousandth of its multiply-adds.",
    ]


def fusion(rows: list[Row], target: Target) -> str:
    """What a partial and a pointwise convolution take together, by what the arithmetic of the first is at the peak."""
    by = {(row.operator.name, row.operator.side): row for row in rows}
    shares = []
    for _, side in SIZES:
        partial, both = by["partial 3x3", side], by["partial + pointwise", side]
        at_peak = 2 * partial.macs / target.core.peak_flop_per_cycle["fp32"]
        shares.append(both.cost / (both.cost - partial.cost + at_peak))
    return (
        f"- A partial and a pointwise convolution take {min(shares):.2f} to {max(shares):.2f} times what the pointwise "
        "one takes by itself and the partial one's multiply-adds would at the peak: nothing is split, concatenated or "
        "copied between the two."
    )


def binding(rows: list[Row]) -> str:
    """What limits depthwise convolution, as a list item."""
    needs = [row.bytes / row.cost for row in rows if row.operator.name == "depthwise 3x3"]
    return (
        f"- Depthwise convolution needs {min(needs):.1f} to {max(needs):.1f} bytes a cycle for its speed: arithmetic "
        "binds it where the caches or the memory deliver them, as these cycles suppose, and memory where they do not."
    )


def draw(rows: list[Row], target: Target, unit: str, file: Path) -> None:
    """Write the drawing as a PNG: a group of bars a feature size, a bar an operator."""
    modelled = unit == "modelled cycles"
    scale = 1 if modelled else 1e9
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(16, 5.6))
        axes = figure.add_axes((0.06, 0.17, 0.93, 0.68))
        labels, place = [], 0.0
        for (channels, side), equal in groupby(rows, key=lambda row: (row.operator.channels, row.operator.side)):
            group = list(equal)
            for row in group:
                axes.bar(place, row.speed / scale, 0.8, color=COLOURS[row.operator.name])
                axes.text(place, row.speed / scale, f"{row.speed / scale:.1f}", ha="center", va="bottom", fontsize=10)
                labels.append((place, row.operator.name.replace(" ", "\n")))
                place += 1
            middle = place - len(group) / 2 - 0.5
            axes.text(middle, 1.0, f"{channels} × {side}²", transform=axes.get_xaxis_transform(), ha="center")
            place += 0.6
        if modelled:
            axes.axhline(target.core.peak_flop_per_cycle["fp32"], color=MUTED, linestyle="--", linewidth=1)
        axes.set_xticks([at for at, _ in labels], [label for _, label in labels], fontsize=7.5)
        axes.set_ylabel("FLOP a modelled cycle" if modelled else "GFLOP/s")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines["left"].set_color(LINE)
        figure.text(0.02, 0.94, f"Operators on {target.title}, one thread, each tuned", fontweight="bold")
        figure.savefig(file, dpi=110, facecolor="white", metadata={"Software": None})
