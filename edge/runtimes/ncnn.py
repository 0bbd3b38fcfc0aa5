"""ncnn in float32: its default stores and computes in half precision wherever the core can, without a word."""

from __future__ import annotations

from pathlib import Path

import ncnn
import numpy as np

from edge.records import Port
from edge.runtimes import Infer

PARAM, BIN = "network.param", "network.bin"
"""The two files of an artifact: graph and weights."""

REDUCED = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")
"""Options that trade precision for speed."""


def title() -> str:
    """The version of ncnn."""
    return f"ncnn {ncnn.__version__}"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Read a folder with a graph and its weights.

    Args:
        artifact: the folder.
        inputs: ports whose ``tensor`` is the name of a blob; feature maps (1, C, H, W).
        outputs: the same for the outputs.
        threads: for the layers.

    Raises:
        ValueError: ncnn does not take the files; its own message is in the log.
    """
    net = ncnn.Net()
    for option in REDUCED:
        setattr(net.opt, option, False)
    net.opt.num_threads = threads
    if net.load_param(str(artifact / PARAM)) or net.load_model(str(artifact / BIN)):
        raise ValueError(f"ncnn does not take {artifact.name}")

    def infer(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        extractor = net.create_extractor()
        for port in inputs:
            extractor.input(port.tensor, ncnn.Mat(arrays[port.name][0]))
        results = {}
        for port in outputs:
            status, blob = extractor.extract(port.tensor)
            if status:
                raise ValueError(f"ncnn could not compute {port.tensor}, status {status}")
            results[port.name] = np.array(blob)[None]
        return results

    return infer
