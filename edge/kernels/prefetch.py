"""Software prefetch: a loop of a scheduled kernel asks for what will be read later, while it computes.

A core's own prefetcher follows lines that are read one after the other. Where a kernel reads the same lines again and
again before it goes on to the next, which is how a matrix product uses its weights, nothing tells the core what comes
next, and each panel's first use waits for the memory. The kernel knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from tvm import tirx
from tvm.ir import Expr
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV
from tvm.script.ir_builder import tirx as T

from edge.kernels import statements
from edge.kernels.statements import Loops

KIND = "edge.prefetch"
READ, KEEP, DATA = 0, 3, 1
"""The arguments of LLVM's prefetch: for reading, into the nearest cache, of data."""

Elements: TypeAlias = Callable[[Loops], Iterable[Expr]]
"""From the loops around a place, the marked one last, to elements of buffers. They may lie outside of their buffer: a
prefetch of what is not there does nothing."""


def mark(scheduler: Schedule, loop: LoopRV, name: str) -> None:
    """Name a loop for ``insert``."""
    statements.mark(scheduler, loop, KIND, name)


def insert(function: tirx.PrimFunc, wanted: Mapping[str, Elements]) -> tirx.PrimFunc:
    """Ask for elements at the beginning of each pass through the marked loops; the marks go.

    Args:
        function: scheduled.
        wanted: for each mark's name, which elements; each stands for its line of the cache.
    """

    def change(statement: tirx.Stmt, around: Loops) -> tirx.Stmt:
        name = statements.marked(statement, KIND)
        if name is None:
            return statement
        asked = map(_prefetch, wanted[name]((*around, statement)))
        return statements.loop(statement, tirx.SeqStmt([*asked, statement.body]), without=KIND)

    return statements.rewrite(function, change)


def _prefetch(element: Expr) -> tirx.Stmt:
    return tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", T.address_of(element), READ, KEEP, DATA))
