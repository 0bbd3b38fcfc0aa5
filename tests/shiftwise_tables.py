"""The index tables of the shift-wise networks, as their authors' code draws them from fixed seeds."""

from __future__ import annotations

import numpy as np
import torch

from edge.kernels.template import Array

SIDE, GROUPS = 3, 4


def tables(channels: int, kernel: int) -> tuple[tuple[int, ...], int, Array, Array]:
    """Ghosts, rep channels, offsets (rep channels x n, 8) and the identity's filters (rep channels, 4)."""
    count = -(-kernel // SIDE)
    rep = int(channels * 0.77) // 2 * 2
    ghosts = np.sort(np.random.RandomState(123).choice(channels, channels - rep, replace=False))
    places = np.array([kernel // 2 - index * SIDE - (SIDE - 1) for index in range(count)])
    generator = torch.Generator().manual_seed(123)

    def shifts() -> Array:
        orders = [torch.randperm(count, generator=generator).numpy() for _ in range(rep)]
        return np.concatenate([places[np.argsort(order)] for order in orders])

    offsets = np.stack([shifts() for _ in range(2 * GROUPS)], axis=1)
    identity = np.stack([torch.randint(0, count, [rep], generator=generator).numpy() for _ in range(GROUPS)], axis=1)
    return tuple(map(int, ghosts)), rep, offsets, identity
