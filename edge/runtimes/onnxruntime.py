"""ONNX Runtime with the kernels of its CPU provider, MLAS."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

# Its wheels for Linux report every session to their maker, from threads that make counts differ. Read at import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime

from edge.records import Port
from edge.runtimes import Infer


def title() -> str:
    """ONNX Runtime and its version."""
    return f"ONNX Runtime {version('onnxruntime')}"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Read an .onnx file.

    Args:
        artifact: the file.
        inputs: ports whose ``tensor`` is the name of an input of the graph.
        outputs: the same for the outputs.
        threads: for the operators; the graph itself runs in order.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    names = [port.tensor for port in outputs]

    def infer(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = session.run(names, {port.tensor: arrays[port.name] for port in inputs})
        return {port.name: result for port, result in zip(outputs, results, strict=True)}

    return infer
