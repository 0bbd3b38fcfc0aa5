"""Lowering in a time that grows with the program: torch's bookkeeping, kept once instead of copied.

Tables of inputs: XNNPACK's serialiser asks for every value whether it is a parameter, a buffer or a constant. Each
question builds the whole table anew: in ShiftwiseConv, with thousands of weights, most of the lowering's time.

Provenance: every pass notes in every node which node it was made of, with a copy of all that earlier passes noted
there. After 17 passes that is a fifth of the lowering's time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from executorch.backends.xnnpack import xnnpack_preprocess
from torch.export import ExportedProgram, ExportGraphSignature
from torch.fx.traceback import NodeSource


def _once(table: Any) -> cached_property[Mapping[str, str]]:
    return cached_property(table.fget)


class _Settled(ExportGraphSignature):
    """A signature that does not change any more."""

    inputs_to_parameters = _once(ExportGraphSignature.inputs_to_parameters)
    inputs_to_buffers = _once(ExportGraphSignature.inputs_to_buffers)
    inputs_to_lifted_tensor_constants = _once(ExportGraphSignature.inputs_to_lifted_tensor_constants)


@contextmanager
def lean_bookkeeping() -> Iterator[None]:
    """While it lasts, a program is lowered to the same bytes in less time."""
    with _settled_signatures(), _shared_provenance():
        yield


@contextmanager
def _settled_signatures() -> Iterator[None]:
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


@contextmanager
def _shared_provenance() -> Iterator[None]:
    """While it lasts, notes of a node's origin are shared; nothing changes them once they are made."""

    record: Any = NodeSource

    def itself(source: NodeSource, memo: dict[int, Any]) -> NodeSource:
        return source

    record.__deepcopy__ = itself
    try:
        yield
    finally:
        del record.__deepcopy__
