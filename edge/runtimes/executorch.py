"""ExecuTorch's C++ runtime with XNNPACK, through its Python bindings, on a saved .pte."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Program, Runtime

from edge.records import Port
from edge.runtimes import Infer


def title() -> str:
    """ExecuTorch and its version."""
    return f"ExecuTorch {version('executorch')}"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Load a program and its ``forward``; inputs and outputs go by position, in the order of the ports.

    Raises:
        RuntimeError: the file is not a whole ExecuTorch program.
    """
    return callable_of(open_program(artifact.read_bytes(), artifact.name, threads), inputs, outputs)


def open_program(content: bytes, name: str, threads: int) -> Program:
    """Let the runtime check the program's structure and load it, with so many threads for XNNPACK.

    Raises:
        RuntimeError: it is not a whole ExecuTorch program.
    """
    portable_lib._unsafe_reset_threadpool(threads)
    try:
        return Runtime.get().load_program(content)
    except RuntimeError as error:
        raise RuntimeError(f"{name} is not a whole ExecuTorch program: {error}") from None


def callable_of(program: Program, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> Infer:
    """The program's ``forward`` as a function on arrays by port name."""

    def infer(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # Asked of the program each time, which loads it once: a method alone does not keep the program's bytes alive.
        forward = program.load_method("forward")
        assert forward is not None
        results = forward.execute([torch.from_numpy(feed[port.name]) for port in inputs])
        return {port.name: result.numpy() for port, result in zip(outputs, results, strict=True)}

    return infer
