"""Core ML programs through the reference evaluator: what the saved program means, on the host. Not Core ML itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edge.records import Port
from edge.runtimes import Infer
from edge.runtimes.mil import Program


def title() -> str:
    """Our evaluator: what it computes is the saved program, not Apple's kernels."""
    return "reference evaluator of the saved program"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Read a saved ``.mlpackage``.

    Args:
        artifact: the package folder.
        inputs: the artifact's inputs; ``Port.tensor`` is the name inside the program.
        outputs: the artifact's outputs.
        threads: torch may use, for the whole process.

    Returns:
        A callable on float32 arrays by port name; float16 inputs are rounded, float16 outputs come back as float32.

    Raises:
        MilError: the package is malformed or holds something the evaluator does not implement.
    """
    torch.set_num_threads(threads)
    program = Program(artifact)

    def infer(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = program({p.tensor: feed[p.name] for p in inputs})
        return {p.name: results[p.tensor].astype(np.float32) for p in outputs}

    return infer
