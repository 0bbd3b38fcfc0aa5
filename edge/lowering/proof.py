"""The proof of a rewrite: both programs in float64, on the same samples, and the ratio of signal to difference.

A rewrite is algebra; in float64 only rounding may remain, about 300 dB. The bound of 250 dB (numerics: "a lowering
rewrite") leaves room for long sums and none for a wrong term.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree

from edge.parity.metrics import sqnr_db

BOUND_DB = 250.0


def evaluate(module: nn.Module, samples: Tensor) -> list[Tensor]:
    """The program's outputs for each sample in turn, in order, stacked (N, …), float64.

    Args:
        module: with float64 weights, batch 1.
        samples: (N, C, H, W) float64.
    """
    with torch.no_grad():
        rows = [_pytree.tree_leaves(module(sample[None])) for sample in samples]
    return [torch.cat(column) for column in zip(*rows, strict=True)]


class _Magnitude(Interpreter):
    """Evaluates a graph and remembers the largest magnitude of any value in it."""

    largest = 0.0

    def run_node(self, n: Node) -> Any:
        """As the base class; constants do not count."""
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, Tensor) and value.is_floating_point():
            self.largest = max(self.largest, float(value.abs().max()))
        return value


def largest_activation(module: GraphModule, samples: Tensor) -> float:
    """The largest magnitude that any value inside the network takes on these samples (N, C, H, W)."""
    interpreter = _Magnitude(module)
    with torch.no_grad():
        for sample in samples:
            interpreter.run(sample[None])
    return interpreter.largest


def proof_db(before: list[Tensor], after: list[Tensor]) -> float:
    """The worst ratio over outputs and samples, in dB; infinite when the bits are the same."""
    return min(min(sqnr_db(b.numpy(), a.numpy())) for b, a in zip(before, after, strict=True))
