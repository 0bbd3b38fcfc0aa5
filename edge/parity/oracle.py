"""The oracle: the network as defined, before any rewrite, in float64; and what eager PyTorch makes of it in float32.

The oracle is what an artifact is judged by. Eager float32's own error is the yardstick for it: a float32 artifact
that is several times worse than PyTorch itself lost something on the way.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree

from edge.parity.metrics import Array, sqnr_db


@dataclass(frozen=True)
class Oracle:
    """Reference outputs by name, each (N, …).

    Attributes:
        outputs: float64.
        eager: eager PyTorch's in float32.
        eager_seconds: median of one eager inference, batch 1.
    """

    outputs: dict[str, Array]
    eager: dict[str, Array]
    eager_seconds: float

    @property
    def eager_sqnr_db(self) -> float:
        """Eager float32 against the oracle, the worst sample of the worst output."""
        return min(min(sqnr_db(self.outputs[name], self.eager[name])) for name in self.outputs)


def _outputs(network: nn.Module, samples: torch.Tensor, names: tuple[str, ...]) -> tuple[dict[str, Array], float]:
    rows, seconds = [], []
    with torch.no_grad():
        for sample in samples:
            begin = time.perf_counter()
            rows.append(_pytree.tree_leaves(network(sample[None])))
            seconds.append(time.perf_counter() - begin)
    stacked = [torch.cat(column).numpy() for column in zip(*rows, strict=True)]
    return dict(zip(names, stacked, strict=True)), float(np.median(seconds))


def consult(network: nn.Module, samples: Array, names: tuple[str, ...]) -> Oracle:
    """Evaluate a network for each sample in turn.

    Args:
        network: as defined, float32; not changed.
        samples: (N, C, H, W) float32.
        names: of the outputs, in order.
    """
    images = torch.from_numpy(np.asarray(samples, dtype=np.float32))
    eager, seconds = _outputs(network, images, names)
    outputs, _ = _outputs(copy.deepcopy(network).double(), images.double(), names)
    return Oracle(outputs, eager, seconds)
