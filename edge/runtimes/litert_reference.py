"""LiteRT's interpreter with its reference kernels and no delegate: plain loops that define what an operator means."""

from __future__ import annotations

from pathlib import Path

from ai_edge_litert.interpreter import OpResolverType

from edge.records import Port
from edge.runtimes import Infer, litert


def title() -> str:
    """LiteRT and its version."""
    return f"{litert.title()}, reference kernels"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Read a .tflite file; as ``edge.runtimes.litert.load``."""
    return litert.load(artifact, inputs, outputs, threads, OpResolverType.BUILTIN_REF)
