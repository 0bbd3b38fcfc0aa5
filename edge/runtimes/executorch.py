"""ExecuTorch's C++ runtime with XNNPACK, through its Python bindings, on a saved .pte.

The bindings' own module is used: ``executorch.runtime``, which wraps it, imports the whole exporter, ten seconds of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.extension.pybindings import _C as bindings

from edge.records import Port
from edge.runtimes import Infer


class Program:
    """A loaded program and its methods, each loaded when it is first run."""

    def __init__(self, content: bytes) -> None:
        """Let the runtime check the structure of a .pte and load it.

        Raises:
            RuntimeError: it is not a whole program.
        """
        self._content = content  # the bindings only point to it
        checks = bindings.Verification.InternalConsistency
        self._program = bindings._load_program_from_buffer(content, program_verification=checks)
        self._method = cache(self._program.load_method)

    def run(self, method: str, inputs: Sequence[torch.Tensor]) -> Sequence[Any]:
        """Run one of its methods."""
        return self._method(method)(inputs)


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
    """Load a program, with so many threads for XNNPACK.

    Raises:
        RuntimeError: it is not a whole ExecuTorch program.
    """
    bindings._unsafe_reset_threadpool(threads)
    try:
        return Program(content)
    except RuntimeError as error:
        raise RuntimeError(f"{name} is not a whole ExecuTorch program: {error}") from None


def callable_of(program: Program, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> Infer:
    """The program's ``forward`` as a function on arrays by port name."""

    def infer(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = program.run("forward", [torch.from_numpy(feed[port.name]) for port in inputs])
        return {port.name: result.numpy() for port, result in zip(outputs, results, strict=True)}

    return infer
