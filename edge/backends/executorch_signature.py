"""Lowering in a time that grows with the program: torch's table of inputs, built once where it is read for each value.

XNNPACK's serialiser asks for every value whether it is a parameter, a buffer or a constant. Each question builds the
whole table anew: in ShiftwiseConv, with thousands of weights, most of the lowering's time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from executorch.backends.xnnpack import xnnpack_preprocess
from torch.export import ExportedProgram, ExportGraphSignature


def _once(table: Any) -> cached_property[Mapping[str, str]]:
    return cached_property(table.fget)


class _Settled(ExportGraphSignature):
    """A signature that does not change any more."""

    inputs_to_parameters = _once(ExportGraphSignature.inputs_to_parameters)
    inputs_to_buffers = _once(ExportGraphSignature.inputs_to_buffers)
    inputs_to_lifted_tensor_constants = _once(ExportGraphSignature.inputs_to_lifted_tensor_constants)


@contextmanager
def settled_signatures() -> Iterator[None]:
    """While it lasts, a program that XNNPACK serialises keeps the tables of its inputs, from its last pass on."""
    number: Callable[..., Any] = xnnpack_preprocess.generate_node_to_external_map

    def settle_and_number(program: ExportedProgram, *others: Any) -> Any:
        program.graph_signature.__class__ = _Settled
        return number(program, *others)

    xnnpack_preprocess.generate_node_to_external_map = settle_and_number
    try:
        yield
    finally:
        xnnpack_preprocess.generate_node_to_external_map = number
