"""LiteRT's interpreter with its reference kernels and no delegate: plain loops that define what an operator means."""

from __future__ import annotations

from pathlib import Path

from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edge.backends import tflite_reference
from edge.records import Port
from edge.runtimes import Infer, litert


def title() -> str:
    """LiteRT and its version."""
    return f"{litert.title()}, reference kernels"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Read a .tflite file; as ``edge.runtimes.litert.load``, around what those kernels get wrong."""
    interpreter = Interpreter(
        model_content=tflite_reference.with_sums_in_float(artifact.read_bytes()),
        num_threads=threads,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    return litert.callable_of(interpreter, inputs, outputs)
