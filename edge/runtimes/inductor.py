"""torch.compile: Inductor's C++ kernels for this core, oneDNN's for convolutions and products, weights frozen.

The artifact is the exported program; it is compiled where it is loaded.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge.toolchains.places import CACHE

# Read when it is first used. What is compiled for one set of instructions is never taken for another.
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(CACHE / "inductor" / os.environ.get("ATEN_CPU_CAPABILITY", "any"))

import numpy as np
import torch
from torch._inductor import config

from edge.records import Port
from edge.runtimes import Infer


def title() -> str:
    """Torch's version."""
    return f"torch.compile {torch.__version__.partition('+')[0]}"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Read a .pt2 file and have Inductor compile it, at its first inference.

    Args:
        artifact: the file.
        inputs: ports in the order of the program's inputs.
        outputs: the same for the outputs.
        threads: for the operators; for the whole process.
    """
    torch.set_num_threads(threads)
    config.freezing = True  # constants: oneDNN gets convolution weights in its own layout
    compiled = torch.compile(torch.export.load(artifact).module())

    def infer(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            results = compiled(*(torch.from_numpy(arrays[port.name]) for port in inputs))
        results = [results] if isinstance(results, torch.Tensor) else results
        return {port.name: result.numpy() for port, result in zip(outputs, results, strict=True)}

    return infer
