"""LiteRT's interpreter with its default kernels: XNNPACK's, and LiteRT's optimised ones for what XNNPACK leaves."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edge.records import Port
from edge.runtimes import Infer


def title() -> str:
    """LiteRT and its version."""
    return f"LiteRT {version('ai-edge-litert')}"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Read a .tflite file.

    Args:
        artifact: the file; it has one signature.
        inputs: ports whose ``tensor`` is a name of that signature.
        outputs: the same for the outputs.
        threads: for the interpreter and its delegate.

    Raises:
        ValueError: the file is damaged or is not a .tflite file.
    """
    return callable_of(Interpreter(model_path=str(artifact), num_threads=threads), inputs, outputs)


def callable_of(interpreter: Interpreter, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> Infer:
    """The only signature of an interpreter as a function on arrays by port name."""
    runner = interpreter.get_signature_runner()

    def infer(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = runner(**{port.tensor: arrays[port.name] for port in inputs})
        return {port.name: results[port.tensor] for port in outputs}

    return infer
