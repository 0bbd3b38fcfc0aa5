"""OpenVINO's CPU plugin in float32: its default computes in bfloat16 wherever the core can."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import openvino

from edge.records import Port
from edge.runtimes import Infer


def title() -> str:
    """OpenVINO and its version."""
    return f"OpenVINO {version('openvino')}"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Read an .onnx file.

    Args:
        artifact: the file.
        inputs: ports whose ``tensor`` is the name of an input of the graph.
        outputs: the same for the outputs.
        threads: for the operators; one image at a time.
    """
    configuration = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # workers run side by side
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(artifact), "CPU", configuration).create_infer_request()

    def infer(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = request.infer({port.tensor: arrays[port.name] for port in inputs}, share_inputs=True)
        return {port.name: results[port.tensor] for port in outputs}

    return infer
