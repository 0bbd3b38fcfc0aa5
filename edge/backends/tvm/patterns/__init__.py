"""From Relax operators to the templates' problems: one file a pattern, in the order in which they are tried."""

from __future__ import annotations

from edge.backends.tvm.patterns import (
    convolution,
    depthwise,
    normalisation,
    partial,
    pointwise,
    response_norm,
    shiftwise,
)

PATTERNS = (
    shiftwise.match,
    depthwise.match,
    partial.match,
    pointwise.match,
    convolution.match,
    normalisation.match,
    response_norm.match,
)
