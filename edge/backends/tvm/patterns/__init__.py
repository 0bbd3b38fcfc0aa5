"""From Relax operators to the templates' problems: one file a pattern, in the order in which they are tried."""

from __future__ import annotations

from edge.backends.tvm.patterns import convolution, depthwise, normalisation, partial, pointwise

PATTERNS = (depthwise.match, partial.match, pointwise.match, convolution.match, normalisation.match)
