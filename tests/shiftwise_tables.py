"""The index tables of the shift-wise networks, as their authors' code draws them from fixed seeds.

`PYTHONPATH=. python tests/shiftwise_tables.py` writes those of the published networks to models/shiftwise_tables.json.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from edge.models.shiftwise_tables import DIGITS, FILE, GROUPS, SIDE, Tables

PUBLISHED = ((80, 51), (160, 49), (320, 47), (640, 13), (96, 51), (192, 49), (384, 47), (768, 13))
"""Channels and kernel of the stages of sw_tiny and sw_small."""


def draw(channels: int, kernel: int) -> Tables:
    """Torch's and numpy's generators with the seed 123, in the order of the authors' constructor."""
    count = -(-kernel // SIDE)
    rep = int(channels * 0.77) // 2 * 2
    ghosts = np.sort(np.random.RandomState(123).choice(channels, channels - rep, replace=False))
    generator = torch.Generator().manual_seed(123)

    def places() -> torch.Tensor:
        return torch.stack([torch.randperm(count, generator=generator).argsort() for _ in range(rep)])

    across, down = (torch.stack([places() for _ in range(GROUPS)]) for _ in range(2))
    identity = torch.stack([torch.randint(0, count, [rep], generator=generator) for _ in range(GROUPS)])
    return Tables(channels, kernel, tuple(map(int, ghosts)), across, down, identity)


def main() -> None:
    """Write the file."""

    def digits(table: torch.Tensor) -> list[str]:
        return ["".join(DIGITS[place] for place in group.flatten()) for group in table]

    content = {}
    for channels, kernel in PUBLISHED:
        drawn = draw(channels, kernel)
        tables = {name: digits(getattr(drawn, name)) for name in ("across", "down", "identity")}
        content[f"{channels} {kernel}"] = {"ghosts": " ".join(map(str, drawn.ghosts)), **tables}
    FILE.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
