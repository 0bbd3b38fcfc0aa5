"""Check vectors: the inputs of every check and what they must give, kept beside the artifacts.

With them an artifact can be checked again on any device, long after the export and without the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.parity.metrics import Array

FOLDER = "vectors"
"""Where they lie beside the artifacts, and what simulations and the host gave for them."""
INPUTS = f"{FOLDER}/inputs.npz"

PARTS = ("inputs", "oracle", "eager")


@dataclass(frozen=True)
class Vectors:
    """Arrays by name, each (N, …): one row a sample.

    Attributes:
        inputs: float32, NCHW, preprocessed.
        oracle: the network's outputs as defined, float64.
        eager: eager PyTorch's outputs in float32.
    """

    inputs: dict[str, Array]
    oracle: dict[str, Array]
    eager: dict[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, count: int | None) -> list[int]:
        """So many samples, evenly spaced, so that photographs and random images are both among them; None for all."""
        total = len(self)
        return [index * total // count for index in range(count)] if count and count < total else list(range(total))

    def take(self, rows: list[int]) -> Vectors:
        """Only these samples."""
        return Vectors(*({name: values[rows] for name, values in getattr(self, part).items()} for part in PARTS))

    def save(self, folder: Path) -> None:
        """Write one .npz for each part."""
        folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            np.savez(folder / f"{part}.npz", allow_pickle=False, **getattr(self, part))


def load(folder: Path) -> Vectors:
    """Read what ``save`` wrote.

    Raises:
        OSError: a part is missing.
        ValueError: a part is damaged.
    """
    return Vectors(*(read(folder / f"{part}.npz") for part in PARTS))


def read(file: Path) -> dict[str, Array]:
    """The arrays of one .npz by name."""
    with np.load(file) as arrays:
        return dict(arrays)
