"""Gates: what an artifact has to reach, and the sentence that says what it missed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.parity.agreement import Agreement
from edge.parity.metrics import Array, Measured, sqnr_db, within_one_quantum
from edge.targets import Gate


@dataclass(frozen=True)
class Lowering:
    """An int8 artifact against its own quantisation simulation: what is left is the converter's and the kernels' error.

    Attributes:
        simulated_by: what made the simulation.
        sqnr_db: artifact against simulation.
        quantisation_sqnr_db: simulation against the oracle: what quantisation itself costs.
        within_one_quantum: share of output elements within one int8 quantum of the simulation.
    """

    simulated_by: str
    sqnr_db: float
    quantisation_sqnr_db: float
    within_one_quantum: float

    @property
    def margin_db(self) -> float:
        """How much smaller the lowering error is than the quantisation error; negative where it is larger."""
        return self.sqnr_db - self.quantisation_sqnr_db


def compare_with_simulation(
    simulated_by: str, simulation: dict[str, Array], oracle: dict[str, Array], outputs: dict[str, Array]
) -> Lowering:
    """Tell lowering error from quantisation error; arrays (N, …) by output name. The worst output counts.

    A simulation may cover fewer samples than the check; its first dimension says how many, counted from the first
    sample.
    """
    rows = {name: len(simulation[name]) for name in oracle}
    return Lowering(
        simulated_by,
        min(min(sqnr_db(simulation[name], outputs[name][: rows[name]])) for name in oracle),
        min(min(sqnr_db(oracle[name][: rows[name]], simulation[name])) for name in oracle),
        min(within_one_quantum(simulation[name], outputs[name][: rows[name]]) for name in oracle),
    )


def judge_bits(agreement: Agreement | None, precision: str, notes: Mapping[str, Any], gate: Gate) -> str:
    """What a device that multiplies integers computes otherwise than the host, in one sentence; empty if nothing.

    Where an operator computes in float, or its int8 kernel is another one on another processor, nothing is asked: cores
    add up in different orders, a last bit decides now and then how a value is rounded to int8, and from there on
    integers differ too. How far they may is the simulation's gate, on every device.

    Args:
        agreement: with the host's outputs, where they are known.
        precision: what the device really multiplied in.
        notes: what the backend says of the file; ``float_operators`` are those that compute in float,
            ``processor_operators`` those whose kernel depends on the processor.
        gate: the target's, for the artifact's precision.
    """
    least = gate.identical_to_host
    if agreement is None or least is None or precision != "int8" or agreement.identical >= least:
        return ""
    if notes.get("float_operators") or notes.get("processor_operators"):
        return ""
    shares = ", ".join(f"{share:.2%} of {name}" for name, share in agreement.differing.items())
    return f"{shares} differ from the host's bits, though both multiply integers"


def _down(value: float) -> str:
    """One decimal, rounded down, so that a miss never reads as a hit."""
    return f"{math.floor(value * 10) / 10:.1f}" if math.isfinite(value) else str(value)


def remark(largest_activation: float, gate: Gate) -> str:
    """What to know about an artifact that passes: how near its values come to what the precision can hold."""
    if gate.largest_activation is None or largest_activation <= gate.largest_activation:
        return ""
    return f"values inside the network reach {largest_activation:.3g}; float16 ends at 65504"


def judge(measured: Measured, lowering: Lowering | None, notes: Mapping[str, Any], gate: Gate) -> str:
    """Which thresholds were missed, in one sentence; empty when all hold.

    Args:
        measured: the artifact against the oracle.
        lowering: the artifact against its quantisation simulation, where there is one.
        notes: what the backend measured on the saved file: two of its figures have gates, and why mixed precision could
            not help is worth saying.
        gate: the target's, for the artifact's precision.
    """
    misses = []
    if not measured.finite:
        misses.append("an output is not finite")
    if not measured.sqnr_db >= gate.sqnr_db:
        misses.append(f"SQNR {_down(measured.sqnr_db)} dB, at least {gate.sqnr_db:g} expected")
        misses += filter(None, [notes.get("mixed_precision", {}).get("refused")])
    if gate.max_rel is not None and not measured.max_rel <= gate.max_rel:
        misses.append(f"largest error {measured.max_rel:.2g} of the largest value, at most {gate.max_rel:g} expected")
    if gate.rms_vs_eager is not None and not measured.rms_vs_eager <= gate.rms_vs_eager:
        misses.append(
            f"RMS error {measured.rms_vs_eager:.1f} times eager PyTorch's own, at most {gate.rms_vs_eager:g} expected"
        )
    if gate.top1 is not None and measured.top1 is not None and not measured.top1 >= gate.top1:
        misses.append(f"top-1 agrees on {measured.top1:.1%} of the samples, at least {gate.top1:.1%} expected")
    margin = gate.lowering_margin_db
    if lowering and margin is not None and not lowering.margin_db >= -margin:
        misses.append(
            f"{_down(lowering.sqnr_db)} dB from the quantisation simulation, which is itself "
            f"{_down(lowering.quantisation_sqnr_db)} dB from the network: the conversion lost more than "
            f"{margin:g} dB over quantisation"
        )
    share, least = notes.get("operators_within_one_quantum"), gate.operators_within_one_quantum
    if share is not None and least is not None and not share >= least:
        misses.append(
            f"{share:.2%} of the outputs of {notes.get('worst_operator', 'an operator')} are within one quantum of its "
            f"reference, at least {least:.1%} expected"
        )
    error, most = notes.get("largest_weight_error_quanta"), gate.largest_weight_error_quanta
    if error is not None and most is not None and not error <= most:
        misses.append(f"an int8 weight is {error:.2g} quanta from the float one, at most {most:g} expected")
    return "; ".join(misses)
