"""What a bench found: one row an artifact, comparable because all else was the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

OURS = "tvm"
"""The format whose kernels are ours; all others run a peer's."""

FIGURES = ("instructions", "vector_fma", "modelled_cycles", "floor_cycles", "share_of_floor")
"""Of a cost, what a row has."""

YARDSTICK = "fp32"
"""The precision in which the best peer is sought; rows of other precisions show what leaving it gains."""


@dataclass(frozen=True)
class Row:
    """One artifact in one runtime.

    Attributes:
        runtime: with its version, and whose kernels it runs where the name does not say it.
        format: as in the table of formats; a peer's name for what is no format of ours.
        precision: of the artifact.
        device: where it was checked and counted.
        file: the artifact's name.
        bytes: its size; None if there is no file.
        status: of its check against the oracle: "passed", "failed" or "skipped". Costs of what did not pass are left
            out: a wrong result can be had for nothing.
        reason: why it did not pass, or why nothing was counted.
        sqnr_db: of the worst sample; None where nothing ran.
        instructions: executed by one warm inference.
        vector_fma: vector multiply-add instructions among them.
        modelled_cycles: in LLVM's model of the core; no time.
        floor_cycles: the network's multiply-adds at the core's peak in the precision that ran.
        share_of_floor: floor / modelled cycles.
        ratio: modelled cycles, in those of the best peer; see ``compared``.
    """

    runtime: str
    format: str
    precision: str
    device: str
    file: str
    bytes: int | None
    status: str
    reason: str = ""
    sqnr_db: float | None = None
    instructions: int | None = None
    vector_fma: int | None = None
    modelled_cycles: int | None = None
    floor_cycles: int | None = None
    share_of_floor: float | None = None
    ratio: float | None = None

    def costing(self, cost: Mapping[str, Any]) -> Row:
        """The row with the figures of its cost, see ``edge.cost.cost``."""
        return replace(self, **{name: cost[name] for name in FIGURES})

    @property
    def verdict(self) -> str:
        """In a few words: what it costs, or why that is not known."""
        if self.modelled_cycles is None:
            return f"{self.status}: {self.reason}"
        return f"{self.modelled_cycles / 1e6:.1f} M modelled cycles"


@dataclass(frozen=True)
class Bench:
    """All rows of one network on one device, and what they were made with.

    Attributes:
        target: the target's name.
        title: the device's name for people.
        core: the emulated core's name.
        network: the model's name.
        macs: its multiply-adds.
        weights: where they come from.
        scheduling_model: LLVM's name of the core whose model the cycles are from.
        samples: how many of the check samples each artifact was checked on.
        command: makes the same again.
        rows: fewest modelled cycles first, what was not counted last.
        unknown: what the figures do not know, as sentences.
    """

    target: str
    title: str
    core: str
    network: str
    macs: int
    weights: str
    scheduling_model: str
    samples: int
    command: str
    rows: tuple[Row, ...]
    unknown: tuple[str, ...]


def best_peer(rows: Iterable[Row]) -> Row | None:
    """The peer in float32 with the fewest modelled cycles; None if none was counted."""
    counted = [row for row in rows if row.format != OURS and row.precision == YARDSTICK and row.modelled_cycles]
    return min(counted, key=lambda row: row.modelled_cycles or 0, default=None)


def compared(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with their ratios to the best peer, fewest modelled cycles first, what was not counted last."""
    best = best_peer(rows)
    rated = [
        replace(row, ratio=round(row.modelled_cycles / best.modelled_cycles, 4))
        if best and best.modelled_cycles and row.modelled_cycles
        else row
        for row in rows
    ]
    return tuple(sorted(rated, key=lambda row: (row.modelled_cycles is None, row.modelled_cycles or 0, row.file)))
