"""Figures from this host's own clock: every runtime in one process, in turn, see ``edge.bench.interleaved``."""

from __future__ import annotations

import signal
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge import pipeline, processes, processor
from edge.bench.entrant import Entrant
from edge.bench.host_python import HostPython, variables
from edge.bench.interleaved import Contender, TimeJob
from edge.bench.peak import peak_gflops
from edge.bench.peers import ENVIRONMENT
from edge.bench.results import YARDSTICK, Row, best_peer
from edge.bench.statistics import quartiles, ratio
from edge.devices import Device, Progress, native
from edge.errors import UsageError
from edge.finished import Finished
from edge.manifest import Manifest
from edge.parity import vectors as check_vectors
from edge.parity.gates import judge
from edge.parity.metrics import measure
from edge.processes import Exit
from edge.progress import Reporter
from edge.records import EmittedFile, to_json
from edge.request import Request
from edge.targets import Target
from edge.tuning.workers import Fault

WARMUPS, SETTLING, REPEATS, ROUNDS, BUDGET_S = 5, 1, 3, (11, 51), 60.0
SEED = 0
LOADING_LIMIT_S, TURN_LIMIT_S, SAMPLING_S = 300, 60, 0.5
LIMIT_S = 3600
INTERLEAVED = "edge.bench.interleaved"
HANGS = "gave no answer within its limit"
RARE = 0.1
"""A width of vectors that makes up less of the vector instructions seen is left out."""


@dataclass(frozen=True)
class Times:
    """Of one artifact among the others.

    Attributes:
        processor, wall: seconds (rounds, repeats).
        outputs: what it computed when it was last timed, (1, …) by name.
        widths: share of the instructions seen, by the bits of their vectors.
    """

    processor: np.ndarray
    wall: np.ndarray
    outputs: dict[str, np.ndarray]
    widths: dict[str, float]

    @property
    def turns_ms(self) -> list[float]:
        """Processor time of one inference, in milliseconds: the median of each round's repeats."""
        return [1e3 * seconds for seconds in np.median(self.processor, axis=1)]


@dataclass(frozen=True)
class Broken:
    """Whose turn it was when the process ended, and how."""

    index: int
    reason: str


class Timing:
    """See ``edge.bench.measure.Measure``."""

    by = "median_ms"
    wheels = ENVIRONMENT

    def __init__(self, target: Target) -> None:
        self._target = target
        self.core = f"this host's {_processor()}"
        self._peak_gflops: float | None = None
        self.device: Device = HostPython(target)

    def obstacle(self, file: EmittedFile) -> str:
        """Timed are the runtimes that devices have, not those that only check."""
        if file.runtime not in native.RUNTIMES:
            return f"{file.runtime} is no runtime of a device"
        return self.device.obstacle(file)

    def export(self, request: Request, reporter: Reporter) -> Manifest:
        """Export, which checks on the host.

        Raises:
            UsageError: this host cannot run the target's code.
        """
        if lacking := processor.missing(self._target):
            raise UsageError(
                f"its core is not emulated, and this host lacks {', '.join(lacking)}, so nothing can be measured",
                stage="bench",
                model=request.name,
                target=self._target.name,
                next_step="`edge targets` shows which cores are emulated",
            )
        return pipeline.export(request, reporter)

    def rows(self, entrants: Sequence[Entrant], finished: Finished, reporter: Reporter) -> tuple[Row, ...]:
        """All that passed their checks are timed together; if one breaks off, the rest begins anew without it."""
        entrants = list(entrants)
        try:
            self._peak_gflops = peak_gflops(self._target)
        except Fault as fault:
            reporter.note(f"the core's peak could not be measured: {fault}")
        while running := [index for index, entrant in enumerate(entrants) if entrant.has_passed]:
            with reporter.lane("timing") as step:
                found = self._timed([entrants[index] for index in running], finished, step)
            if isinstance(found, Broken):
                culprit = running[found.index]
                entrants[culprit] = entrants[culprit].failed(f"timing: {found.reason}")
                reporter.note(f"{entrants[culprit].row.runtime}: {found.reason}")
                continue
            return self._rated(entrants, dict(zip(running, found, strict=True)), finished)
        return tuple(entrant.row for entrant in entrants)

    def method(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """How the times were taken."""
        rounds = max((row.rounds or 0 for row in rows), default=0)
        limits = ", ".join(f"{name}={value}" for name, value in variables(self._target).items())
        held = limits and f" OpenVINO, torch and the C library were held to the target's by {limits}; others cannot be."
        return (
            f"All runtimes are in one process that keeps to one core. In each of {rounds} rounds every runtime "
            f"has one turn, in an order drawn anew (seed {SEED}): {SETTLING} inference to settle, then {REPEATS} "
            "against the clocks, of which the median counts. They take and give numpy arrays in their own layout; the "
            "call from Python and the copies in and out are in the time.",
            "median: over the rounds, of the processor time of the whole process, which other work on the machine does "
            "not lengthen; wall: of the time by the clock on the wall, which it does. quartiles: the middle half of "
            "the rounds.",
            "ratio: the median of the quotients with the best float32 peer's turn in the same round; 95 %: where that "
            "median is with 95 % confidence; ≈: no telling which of the two is faster.",
            "vectors: the bits of the vector instructions seen while it ran, the most frequent first; what is rarer "
            f"than a tenth is left out. Runtimes choose their kernels by what the core has.{held}",
            *self._bound(rows),
            "The times are this machine's, at the clock it had; the ratios are what carries over.",
        )

    def _bound(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """How fast anything could be here."""
        best = best_peer(rows, self.by)
        if self._peak_gflops is None or best is None or best.share_of_floor is None:
            return ()
        return (
            f"of peak: of the {self._peak_gflops:.0f} GFLOP/s that a loop of nothing but independent multiply-adds "
            "reaches on this core. The best peer's share is also the least ratio that there can be, for a library "
            f"that multiplies all that the network's formula multiplies: {best.share_of_floor:.2f}.",
        )

    def _timed(self, entrants: Sequence[Entrant], finished: Finished, step: Progress) -> list[Times] | Broken:
        """Times of each, or who broke off."""
        work = Path(tempfile.mkdtemp(dir=finished.work, prefix="timing."))
        job = TimeJob(
            contenders=tuple(_contender(entrant) for entrant in entrants),
            check_inputs=finished.folder / check_vectors.INPUTS,
            results=work / "times.npz",
            turn=work / "turn",
            seed=SEED,
            warmups=WARMUPS,
            settling=SETTLING,
            repeats=REPEATS,
            rounds=ROUNDS,
            budget_s=BUDGET_S,
            loading_limit_s=LOADING_LIMIT_S,
            limit_s=TURN_LIMIT_S,
            sampling_s=SAMPLING_S,
        )
        names = [entrant.row.runtime for entrant in entrants]
        step(f"loading {names[0]}")

        def on_event(event: dict[str, Any]) -> None:
            following = event.get("contender", 0) + 1
            if event["event"] == "loaded":
                step(f"loading {names[following]}" if following < len(names) else "in rounds")

        events, end = processes.work(
            to_json(job),
            ENVIRONMENT,
            1,
            LIMIT_S,
            processes.desk(job.results),
            on_event,
            INTERLEAVED,
            variables(self._target),
        )
        if end.reason:
            return Broken(int(job.turn.read_text(encoding="utf-8")), _reason(end))
        widths = {event["contender"]: event["widths"] for event in events if event["event"] == "sampled"}
        with np.load(job.results) as arrays:
            return [
                Times(
                    arrays["processor"][index],
                    arrays["wall"][index],
                    {port.name: arrays[f"{index}:{port.name}"] for port in contender.outputs},
                    widths[index],
                )
                for index, contender in enumerate(job.contenders)
            ]

    def _rated(self, entrants: list[Entrant], times: dict[int, Times], finished: Finished) -> tuple[Row, ...]:
        """The rows with their times, and with the ratios to the best peer, round by round."""
        vectors = finished.vectors("bench").take([0])
        macs = finished.manifest["network"]["macs"]
        rows = [entrant.row for entrant in entrants]
        for index, found in times.items():
            gate = finished.target.gates[rows[index].precision]
            measured = measure(vectors.oracle, vectors.eager, found.outputs, gate.max_rel or 0.0)
            if missed := judge(measured, None, {}, gate):
                rows[index] = entrants[index].failed(f"timing: beside the others {missed}").row
            else:
                rows[index] = _timed_row(rows[index], found, macs, self._peak_gflops)
        best = best_peer(rows, self.by)
        if best is None:
            return tuple(rows)
        yardstick = times[rows.index(best)]
        for index, found in times.items():
            if rows[index].median_ms is not None:
                middle, interval = ratio(found.turns_ms, yardstick.turns_ms)
                rounded = (round(interval[0], 4), round(interval[1], 4))
                rows[index] = replace(
                    rows[index], ratio=round(middle, 4), ratio_interval=None if found is yardstick else rounded
                )
        return tuple(rows)


def _contender(entrant: Entrant) -> Contender:
    file = entrant.file
    assert file and entrant.artifact
    return Contender(file.runtime, entrant.artifact, file.inputs, file.outputs)


def _timed_row(row: Row, times: Times, macs: int, peak_gflops: float | None) -> Row:
    median = statistics.median(times.turns_ms)
    gflops = 2 * macs / median / 1e6
    share = gflops / peak_gflops if peak_gflops and row.precision == YARDSTICK else None
    first, third = quartiles(times.turns_ms)
    return replace(
        row,
        rounds=len(times.turns_ms),
        median_ms=round(median, 4),
        quartiles_ms=(round(first, 4), round(third, 4)),
        wall_ms=round(1e3 * float(np.median(times.wall)), 4),
        gflops=round(gflops, 1),
        share_of_floor=None if share is None else round(share, 4),
        vectors=_vectors(times.widths),
    )


def _vectors(widths: Mapping[str, float]) -> str:
    """The bits of the vectors it works on, the most frequent first; empty where none was seen."""
    shares = {bits: share for bits, share in widths.items() if bits != "0"}
    common = [bits for bits, share in shares.items() if share >= RARE * sum(shares.values())]
    return "/".join(sorted(common, key=lambda bits: -shares[bits]))


def _reason(end: Exit) -> str:
    return HANGS if end.status == -signal.SIGALRM else end.reason


def _processor() -> str:
    core = processor.cpuinfo()
    details = [f"{field.removeprefix('cpu ')} {core[field]}" for field in ("cpu family", "model") if field in core]
    return f"{processor.name()} ({', '.join(details)})" if details else processor.name()
