"""torch.compile: Inductor's C++ kernels for this core, oneDNN's for convolutions and products, weights frozen.

The artifact is the exported program; it is compiled where it is loaded.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge.toolchains.places import CACHE

os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE / "inductor"))  # read when it is first used

import numpy as np
import torch
from torch._inductor import config

from edge.records import Port
from edge.runtimes import Infer


def title() -> str:
    """Torch's version."""
    return f"torch.compile {torch.__version__.partition('+')[0]}"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Read a .pt2 file and let Inductor compile it; feature maps channels last, which is the faster layout here.

    Args:
        artifact: the file.
        inputs: ports in the order of the program's inputs.
        outputs: the same for the outputs.
        threads: for the operators; for the whole process.
    """
    torch.set_num_threads(threads)
    config.freezing = True
    module: torch.nn.Module = torch.export.load(artifact).module()
    compiled = torch.compile(module.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    def infer(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            tensors = [torch.from_numpy(arrays[port.name]) for port in inputs]
            results = compiled(
                *[t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in tensors]
            )
        results = [results] if isinstance(results, torch.Tensor) else results
        return {port.name: result.numpy() for port, result in zip(outputs, results, strict=True)}

    return infer
