"""How far an artifact's outputs are from the oracle's.

SQNR, because against a float64 reference it tells which precision really ran; cosine, top-1 and absolute error cannot.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

ENERGY_FLOOR = 1e-4
"""A sample's signal counts as at least this share (-40 dB) of the strongest's: silent outputs would measure noise."""


def _per_sample(values: Array) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)


def sqnr_db(oracle: Array, outputs: Array) -> list[float]:
    """Signal to quantisation noise of each sample: 10 log10(Σ y² / Σ (y − ŷ)²), in dB.

    Args:
        oracle: (N, …) reference.
        outputs: (N, …) to be judged.

    Returns:
        N ratios; infinite where nothing differs, minus infinite where an output is not finite.
    """
    reference, got = _per_sample(oracle), _per_sample(outputs)
    signal = (reference**2).sum(1)
    signal = np.maximum(signal, ENERGY_FLOOR * signal.max(initial=0.0))
    with np.errstate(invalid="ignore", over="ignore"):
        noise = ((reference - got) ** 2).sum(1)
    return [
        -math.inf if not math.isfinite(n) else math.inf if n == 0 else 10 * math.log10(s / n) if s > 0 else -math.inf
        for s, n in zip(signal.tolist(), noise.tolist(), strict=True)
    ]


def max_rel(oracle: Array, outputs: Array) -> float:
    """The worst sample's max|e| / max|y|."""
    reference, got = _per_sample(oracle), _per_sample(outputs)
    peak = np.abs(reference).max(1)
    peak = np.maximum(peak, math.sqrt(ENERGY_FLOOR) * peak.max(initial=0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.abs(reference - got).max(1) / peak
    worst = float(np.nan_to_num(ratios, nan=math.inf).max(initial=0.0))
    return 0.0 if np.array_equal(reference, got) else worst


def rms(oracle: Array, outputs: Array) -> float:
    """Root mean square error over all samples."""
    return float(np.sqrt(np.mean((_per_sample(oracle) - _per_sample(outputs)) ** 2)))


def top1(oracle: Array, outputs: Array, tie: float) -> float:
    """Share of samples whose largest class is the oracle's, for logits (N, classes).

    A sample whose first two classes the oracle holds closer than twice ``tie`` · max|y| is a tie: an error that the
    gate allows could swap them, so either counts as right.
    """
    reference, got = _per_sample(oracle), _per_sample(outputs)
    ranked = np.sort(reference, axis=1)
    tied = ranked[:, -1] - ranked[:, -2] <= 2 * tie * np.abs(reference).max(1)
    return float(np.mean((reference.argmax(1) == got.argmax(1)) | tied))


def within_one_quantum(simulation: Array, outputs: Array) -> float:
    """Share of elements within one int8 quantum of the quantisation simulation: 1/255 of the range it spans."""
    expected, got = np.asarray(simulation, np.float64), np.asarray(outputs, np.float64)
    quantum = float(np.ptp(expected)) / 255
    return float(np.mean(np.abs(expected - got) <= quantum))


@dataclass(frozen=True)
class Measured:
    """All figures of one artifact, the worst over its outputs.

    Attributes:
        sqnr_db: of the worst sample.
        sample_sqnr_db: of each sample, the worst output of each.
        max_rel: max|e| / max|y| of the worst sample.
        max_abs: max|e|.
        top1: share of agreeing samples; None unless the only output is logits.
        rms_vs_eager: RMS error over eager PyTorch float32's own RMS error.
        finite: whether every output value is a number.
    """

    sqnr_db: float
    sample_sqnr_db: tuple[float, ...]
    max_rel: float
    max_abs: float
    top1: float | None
    rms_vs_eager: float
    finite: bool


def measure(oracle: dict[str, Array], eager: dict[str, Array], outputs: dict[str, Array], tie: float) -> Measured:
    """Compare all outputs, by name, with the oracle and with eager float32's own error."""
    samples = [sqnr_db(oracle[name], outputs[name]) for name in oracle]
    worst = tuple(min(column) for column in zip(*samples, strict=True))
    with np.errstate(invalid="ignore"):
        ratios = [
            rms(oracle[name], outputs[name]) / max(rms(oracle[name], eager[name]), sys.float_info.min)
            for name in oracle
        ]
        largest = max(float(np.max(np.abs(np.asarray(outputs[n], np.float64) - oracle[n]))) for n in oracle)
    logits = list(oracle) == ["logits"]
    return Measured(
        sqnr_db=min(worst),
        sample_sqnr_db=worst,
        max_rel=max(max_rel(oracle[name], outputs[name]) for name in oracle),
        max_abs=largest,
        top1=top1(oracle["logits"], outputs["logits"], tie) if logits else None,
        rms_vs_eager=max(ratios),
        finite=all(bool(np.isfinite(outputs[name]).all()) for name in oracle),
    )
