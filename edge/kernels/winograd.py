"""Winograd's short convolutions: m neighbouring outputs of three taps with m + 2 multiplications instead of 3 m.

    out = A ((G w) * (B d))      d: m + 2 inputs,  w: three taps,  out[i] = sum over r of d[i + r] w[r]

The transforms B and A are linear, so sums over many inputs are taken between them: each input is transformed once, each
output once, and what lies between is one multiply-add where there were 3 m / (m + 2). S. Winograd, *Arithmetic
Complexity of Computations*, 1980; A. Lavin and S. Gray, arXiv:1509.09308. The more outputs at once, the larger the
constants and with them the rounding error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.kernels.template import Array

TAPS = 3

Matrix = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Transform:
    """One such algorithm.

    Attributes:
        b: B, (m + 2, m + 2).
        g: G, (m + 2, 3), times ``g_over``.
        g_over: what G's fractions have below the line.
        a: A, (m, m + 2).
        pairs: products whose rows of B, and columns of A, are equal but for signs: their sum and difference are less
            work than either by itself.
    """

    b: Matrix
    g: Matrix
    g_over: int
    a: Matrix
    pairs: tuple[tuple[int, int], ...] = ()

    def weights(self, taps: Array) -> Array:
        """G w, for taps along the first axis."""
        return np.tensordot(np.array(self.g) / self.g_over, taps, axes=1)

    def inputs(self, values: Sequence[Any]) -> list[Any]:
        """B d, of values that can be added and multiplied."""
        results = [_sum(row, values) for row in self.b]
        for one, other in self.pairs:
            rows = list(zip(self.b[one], self.b[other], strict=True))
            even = _sum([x if x == y else 0 for x, y in rows], values)
            odd = _sum([x if x != y else 0 for x, y in rows], values)
            results[one], results[other] = even + odd, even - odd
        return results

    def outputs(self, values: Sequence[Any]) -> list[Any]:
        """A m, of values that can be added and multiplied."""
        paired = [index for pair in self.pairs for index in pair]
        results = []
        for row in self.a:
            factors = [factor for index, factor in enumerate(row) if index not in paired]
            terms = [value for index, value in enumerate(values) if index not in paired]
            for one, other in self.pairs:
                factors.append(row[one])
                terms.append(values[one] + values[other] if row[one] == row[other] else values[one] - values[other])
            results.append(_sum(factors, terms))
        return results


def _sum(factors: Sequence[int], values: Sequence[Any]) -> Any:
    """The sum of the values times their factors, of which most are 0 or 1; a positive term comes first.

    A factor of 5 is 4 and 1: products with powers of two are exact, so the sum has the same bits whether or not a
    compiler makes multiply-adds of it.
    """
    terms = [
        (factor, value, power)
        for factor, value in zip(factors, values, strict=True)
        for power in (8, 4, 2, 1)
        if abs(factor) & power
    ]
    total: Any = None
    for factor, value, power in sorted(terms, key=lambda term: -term[0]):
        term = value if power == 1 else value * float(power)
        total = term if total is None else total + term if factor > 0 else total - term
    return total


TRANSFORMS = {
    1: Transform(
        b=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        g=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        g_over=1,
        a=((1, 1, 1),),
    ),
    2: Transform(
        b=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        g=((2, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 2)),
        g_over=2,
        a=((1, 1, 1, 0), (0, 1, -1, -1)),
        pairs=((1, 2),),
    ),
    4: Transform(
        b=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        g=((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24)),
        g_over=24,
        a=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
        pairs=((1, 2), (3, 4)),
    ),
}
"""By the number of outputs; one output is the plain sum."""
