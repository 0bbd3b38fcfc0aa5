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
from unittest.mock import patch

from executorch.backends.xnnpack import xnnpack_preprocess
from torch.export import ExportedProgram, ExportGraphSignature
from torch.fx.traceback import NodeSource

_number: Callable[..., Any] = xnnpack_preprocess.generate_node_to_external_map


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
    settled = patch.object(xnnpack_preprocess, "generate_node_to_external_map", _settle_and_number)
    shared = patch.object(NodeSource, "__deepcopy__", _itself, create=True)
    with settled, shared:
        yield


def _settle_and_number(program: ExportedProgram, *others: Any) -> Any:
    """A program that is serialised keeps the tables of its inputs, from XNNPACK's last pass on."""
    program.graph_signature.__class__ = _Settled
    return _number(program, *others)


def _itself(source: NodeSource, memo: dict[int, Any]) -> NodeSource:
    """Notes of a node's origin are shared: nothing changes them once they are made."""
    return source
