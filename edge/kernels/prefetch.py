"""Software prefetch: a loop of a scheduled kernel asks for what will be read later, while it computes.

A core's own prefetcher follows lines that are read one after the other. Where a kernel reads the same lines again and
again before it goes on to the next, which is how a matrix product uses its weights, nothing tells the core what comes
next, and each panel's first use waits for the memory. The kernel knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from tvm import tirx
from tvm.ir import Expr
from tvm.s_tir import SBlock, SBlockRealize, Schedule
from tvm.s_tir.schedule import LoopRV
from tvm.script.ir_builder import tirx as T

MARK = "edge.prefetch"
READ, KEEP, DATA = 0, 3, 1
"""The arguments of LLVM's prefetch: for reading, into the nearest cache, of data."""

Elements: TypeAlias = Callable[[Sequence[tirx.For]], Iterable[Expr]]
"""From the loops around a place, the outermost first and the marked one last, to elements of buffers. They may lie
outside of their buffer: a prefetch of what is not there does nothing."""


def mark(scheduler: Schedule, loop: LoopRV, name: str) -> None:
    """Name a loop for ``insert``."""
    scheduler.annotate(loop, MARK, name)


def insert(function: tirx.PrimFunc, wanted: Mapping[str, Elements]) -> tirx.PrimFunc:
    """Ask for elements at the beginning of each pass through the marked loops; the marks go.

    Args:
        function: scheduled.
        wanted: for each mark's name, which elements; each stands for its line of the cache.
    """

    def visit(statement: tirx.Stmt, around: tuple[tirx.For, ...]) -> tirx.Stmt:
        if isinstance(statement, tirx.SeqStmt):
            return tirx.SeqStmt([visit(part, around) for part in statement.seq])
        if isinstance(statement, SBlockRealize):
            inner = _with_body(statement.block, visit(statement.block.body, around))
            return SBlockRealize(statement.iter_values, statement.predicate, inner)
        if not isinstance(statement, tirx.For):
            return statement
        notes = dict(statement.annotations)
        name, loops = notes.pop(MARK, None), (*around, statement)
        body = visit(statement.body, loops)
        if name is not None:
            body = tirx.SeqStmt([*(_prefetch(element) for element in wanted[str(name)](loops)), body])
        loop = (statement.loop_var, statement.min, statement.extent, statement.kind)
        return tirx.For(*loop, body, statement.thread_binding, notes)

    return function.with_body(visit(function.body, ()))


def _prefetch(element: Expr) -> tirx.Stmt:
    return tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", T.address_of(element), READ, KEEP, DATA))


def _with_body(block: SBlock, body: tirx.Stmt) -> SBlock:
    buffers = (block.alloc_buffers, block.match_buffers, block.annotations)
    return SBlock(block.iter_vars, block.reads, block.writes, block.name_hint, body, block.init, *buffers)
