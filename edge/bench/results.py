"""What a bench found: one row an artifact, comparable because all else was the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

OURS = "tvm"
"""The format whose kernels are ours; all others run a peer's."""

COUNTED = ("instructions", "vector_fma", "modelled_cycles", "floor_cycles", "share_of_floor")
"""Of a cost on the emulated core, what a row has."""

YARDSTICK = "fp32"
"""The precision in which the best peer is sought; rows of other precisions show what leaving it gains."""


@dataclass(frozen=True)
class Row:
    """One artifact in one runtime. On an emulated core it is counted, on the host it is timed.

    Attributes:
        runtime: with its version, and whose kernels it runs where the name does not say it.
        format: as in the table of formats; a peer's name for what is no format of ours.
        precision: of the artifact.
        device: where it was checked and measured.
        file: the artifact's name.
        bytes: its size; None if there is no file.
        status: of its check against the oracle: "passed", "failed" or "skipped". Figures of what did not pass are left
            out: a wrong result can be had for nothing.
        reason: why it did not pass, or why nothing was measured.
        sqnr_db: of the worst sample; None where nothing ran.
        instructions: executed by one warm inference.
        vector_fma: vector multiply-add instructions among them.
        modelled_cycles: in LLVM's model of the core; no time.
        floor_cycles: the network's multiply-adds at the core's peak in the precision that ran.
        share_of_floor: floor / modelled cycles; of what was timed, ``gflops`` by the core's peak.
        rounds: how often it had its turn against the clock, see ``edge.bench.interleaved``.
        median_ms: processor time of one inference on one core.
        quartiles_ms: a quarter of the rounds took less than the first, a quarter more than the second.
        wall_ms: median by the clock on the wall, which other work on the machine lengthens.
        gflops: the network's floating-point operations, a multiply-add counting as two, by ``median_ms``; in 10⁹/s.
        vectors: which vector instructions ran, as sampled.
        ratio: what is compared, in that of the best peer.
        ratio_interval: where the ratio is with 95 % confidence; None where there is nothing to doubt.
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
    rounds: int | None = None
    median_ms: float | None = None
    quartiles_ms: tuple[float, float] | None = None
    wall_ms: float | None = None
    gflops: float | None = None
    vectors: str = ""
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None

    def costing(self, cost: Mapping[str, Any]) -> Row:
        """The row with the figures of its cost, see ``edge.cost.cost``."""
        return replace(self, **{name: cost[name] for name in COUNTED})

    def figure(self, by: str) -> float | None:
        """What rows are compared by; None if it was not measured."""
        return getattr(self, by)

    @property
    def is_doubtful(self) -> bool:
        """Whether the spread hides which of this row and the best peer is faster."""
        return self.ratio_interval is not None and self.ratio_interval[0] <= 1 <= self.ratio_interval[1]


@dataclass(frozen=True)
class Bench:
    """All rows of one network on one device, and what they were made with.

    Attributes:
        target: the target's name.
        title: the device's name for people.
        by: the field of the rows that they are compared by, see ``edge.bench.quantities``.
        core: that the artifacts ran on, with its article, as in "an emulated cortex-a72".
        network: the model's name.
        macs: its multiply-adds.
        weights: where they come from.
        samples: how many of the check samples each artifact was checked on.
        command: makes the same again.
        rows: the least first, what was not measured last.
        method: how the figures were made and what they do not know, as sentences.
    """

    target: str
    title: str
    by: str
    core: str
    network: str
    macs: int
    weights: str
    samples: int
    command: str
    rows: tuple[Row, ...]
    method: tuple[str, ...]


def best_peer(rows: Iterable[Row], by: str) -> Row | None:
    """The peer in float32 with the least of what rows are compared by; None if none was measured."""
    peers = [row for row in rows if row.format != OURS and row.precision == YARDSTICK and row.figure(by)]
    return min(peers, key=lambda row: row.figure(by) or 0, default=None)


def rated(rows: Sequence[Row], by: str) -> tuple[Row, ...]:
    """The rows with their ratios to the best peer."""
    best = best_peer(rows, by)
    least = best.figure(by) if best else None
    return tuple(
        replace(row, ratio=round(figure / least, 4)) if least and (figure := row.figure(by)) else row for row in rows
    )


def ordered(rows: Iterable[Row], by: str) -> tuple[Row, ...]:
    """The least of what rows are compared by first, what was not measured last."""
    return tuple(sorted(rows, key=lambda row: (row.figure(by) is None, row.figure(by) or 0, row.file, row.runtime)))
