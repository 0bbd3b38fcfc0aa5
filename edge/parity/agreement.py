"""Where a device's outputs differ in bits from the host's: other kernels were chosen, or other arithmetic was done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.parity.metrics import Array, sqnr_db


@dataclass(frozen=True)
class Agreement:
    """The outputs of one artifact on two devices, the same samples.

    Attributes:
        identical: share of the output elements that have the same bits.
        sqnr_db: of one against the other, the worst sample and output; infinite where nothing differs.
        differing: share of elements that differ, by output; outputs that do not differ are left out.
    """

    identical: float
    sqnr_db: float
    differing: dict[str, float]


def compare_bits(host: dict[str, Array], outputs: dict[str, Array]) -> Agreement:
    """Compare outputs (N, …) by name, element by element; the sign of a zero counts, as all bits do."""
    same = {name: _bits(host[name]) == _bits(outputs[name]) for name in host}
    differing = {name: float(1 - equal.mean()) for name, equal in same.items() if not equal.all()}
    return Agreement(
        float(np.mean(np.concatenate([equal.ravel() for equal in same.values()]))),
        min(min(sqnr_db(host[name], outputs[name])) for name in host),
        differing,
    )


def _bits(values: Array) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
