"""MNN in float32, through its module interface."""

from __future__ import annotations

from pathlib import Path

import MNN
import numpy as np
from MNN import expr

from edge.records import Port
from edge.runtimes import Infer

CPU = 0


def title() -> str:
    """MNN and its version."""
    return f"MNN {MNN.version()}"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Read an .mnn file.

    Args:
        artifact: the file.
        inputs: ports whose ``tensor`` is the name of an input of the graph; feature maps NCHW.
        outputs: the same for the outputs.
        threads: for the operators.
    """
    configuration = {"backend": CPU, "numThread": threads, "precision": "high"}
    module = MNN.nn.load_module_from_file(
        str(artifact),
        [port.tensor for port in inputs],
        [port.tensor for port in outputs],
        runtime_manager=MNN.nn.create_runtime_manager((configuration,)),
    )

    def infer(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        feeds = [expr.const(arrays[port.name], port.shape, expr.NCHW, expr.float) for port in inputs]
        results = [expr.convert(result, expr.NCHW) for result in module.forward(feeds)]
        return {port.name: np.array(result.read()) for port, result in zip(outputs, results, strict=True)}

    return infer
