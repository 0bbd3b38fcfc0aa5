"""Medians of few and noisy times, and how far they can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.95


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile."""
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of what the values are drawn from is, with 95 % confidence, whatever its distribution.

    How many of n draws fall below the median is binomial (n, ½). So the k-th smallest and the k-th largest value
    enclose it with the probability 1 - 2·P(fewer than k fall below); k is the largest for which that is enough. With
    fewer than six values none is, and the interval is everything.
    """
    ascending = sorted(values)
    count = len(ascending)
    tail, inside = 0.0, 0
    for k in range(count // 2):
        tail += math.comb(count, k) / 2**count
        if 2 * tail > 1 - CONFIDENCE:
            break
        inside = k + 1
    return (ascending[inside - 1], ascending[-inside]) if inside else (-math.inf, math.inf)


def ratio(times: Sequence[float], others: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """How many times as long as the others, from pairs that were taken one after the other.

    What slows the machine for a while slows both of a pair, and leaves their quotient alone.

    Returns:
        The median of the quotients, and the interval it is in with 95 % confidence.
    """
    quotients = [time / other for time, other in zip(times, others, strict=True)]
    return statistics.median(quotients), median_interval(quotients)
