"""Fold a BatchNorm into what reads it: unpadded convolutions and linear layers, through means, permutations and views.

    W(s·x + t) + b  ->  (W·s)x + (b + Σ W·t)

with s, t per input channel. The sum runs over input channels and taps. A padded convolution sees zeros, not t, beyond
the border: there the fold is not exact and is refused. A pyramid's norms go into the FPN's lateral 1x1, the norm before
a head through the mean over all positions into its linear layer.
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from edge.lowering.batch_norm import BatchNorm, match_batch_norm, scale_and_shift
from edge.lowering.channel_walk import absorb, obstacle, readers
from edge.lowering.graph import replace
from edge.lowering.rewrite import Rewrite

CHANNELS = 1


def match(module: GraphModule, node: Node) -> BatchNorm | None:
    """Any BatchNorm that still stands."""
    return match_batch_norm(node)


def check(module: GraphModule, norm: BatchNorm) -> str | None:
    """Every reader must be an unpadded convolution or a linear layer with constant weights."""
    found = (obstacle(reader, axis) for reader, axis in readers(norm.output, CHANNELS))
    return next((reason for reason in found if reason), None)


def apply(module: GraphModule, norm: BatchNorm) -> None:
    """Give every reader its own folded weight and bias."""
    scale, shift = scale_and_shift(module, norm)
    for reader, _ in list(readers(norm.output, CHANNELS)):
        absorb(module, reader, scale, shift)
    replace(norm.output, norm.input)


REWRITE = Rewrite("fold_batch_norm_forward", "W(s·x + t) + b  ->  (W·s)x + (b + Σ W·t)", match, check, apply)
