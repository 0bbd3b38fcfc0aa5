"""TVM's runtime: loads a shared library and runs its program in the virtual machine."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from edge.records import Port
from edge.runtimes import Infer

ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")


def title() -> str:
    """TVM and its version."""
    return f"TVM {tvm.__version__}"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Load the library; the first one that runs in a process fixes the number of threads.

    Raises:
        ValueError: the file is not a whole shared library.
    """
    _check_whole(artifact)
    os.environ["TVM_NUM_THREADS"] = str(threads)
    os.environ["TVM_BIND_THREADS"] = "0"  # Workers run side by side: none may claim a core for itself.
    device = tvm.cpu()
    main = relax.VirtualMachine(tvm.runtime.load_module(str(artifact.resolve())), device)["main"]
    # Made once: fresh memory for each image costs more than the copy.
    arguments = [tvm.runtime.empty(port.shape, "float32", device) for port in inputs]

    def infer(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for argument, port in zip(arguments, inputs, strict=True):
            argument.copyfrom(feed[port.name])
        result = main(*arguments)
        tensors = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        return {port.name: tensor.numpy() for port, tensor in zip(outputs, tensors, strict=True)}

    return infer


def _check_whole(artifact: Path) -> None:
    """The loader maps a shortened file without complaint and the process dies later, so look at its end first.

    The linker writes the table of sections last: if that is there, so is the rest.
    """
    size = artifact.stat().st_size
    with artifact.open("rb") as file:
        header = file.read(ELF_HEADER.size)
    if len(header) < ELF_HEADER.size or header[:4] != b"\x7fELF":
        raise ValueError(f"{artifact.name} is not a shared library")
    fields = ELF_HEADER.unpack(header)
    needed = fields[6] + fields[11] * fields[12]  # e_shoff + e_shentsize * e_shnum
    if size < needed:
        raise ValueError(f"{artifact.name} is truncated: {size} of at least {needed} bytes")
