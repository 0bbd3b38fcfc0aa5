"""What schedules cannot say: loops of a scheduled kernel are marked, and then changed as statements."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.s_tir import SBlock, SBlockRealize, Schedule
from tvm.s_tir.schedule import LoopRV

Loops = tuple[tirx.For, ...]
"""The loops around a statement, the outermost first."""


def mark(scheduler: Schedule, loop: LoopRV, kind: str, name: str) -> None:
    """Give a loop a name, for those who look for marks of that kind."""
    scheduler.annotate(loop, kind, name)


def marked(statement: tirx.Stmt, kind: str) -> str | None:
    """The name that a statement was given; None if it is no loop, or has none."""
    name = statement.annotations.get(kind) if isinstance(statement, tirx.For) else None
    return None if name is None else str(name)


def loop(like: tirx.For, body: tirx.Stmt, without: str = "") -> tirx.For:
    """A loop with another body, and without its mark of a kind."""
    notes = {key: value for key, value in like.annotations.items() if key != without}
    return tirx.For(like.loop_var, like.min, like.extent, like.kind, body, like.thread_binding, notes)


def rewrite(function: tirx.PrimFunc, change: Callable[[tirx.Stmt, Loops], tirx.Stmt]) -> tirx.PrimFunc:
    """A kernel whose loops and sequences of statements are what ``change`` makes of them, the inner ones first."""

    def visit(statement: tirx.Stmt, around: Loops) -> tirx.Stmt:
        if isinstance(statement, SBlockRealize):
            block = _with_body(statement.block, visit(statement.block.body, around))
            return SBlockRealize(statement.iter_values, statement.predicate, block)
        if isinstance(statement, tirx.SeqStmt):
            return change(tirx.SeqStmt([visit(part, around) for part in statement.seq]), around)
        if isinstance(statement, tirx.For):
            return change(loop(statement, visit(statement.body, (*around, statement))), around)
        return statement

    return function.with_body(visit(function.body, ()))


def _with_body(block: SBlock, body: tirx.Stmt) -> SBlock:
    buffers = (block.alloc_buffers, block.match_buffers, block.annotations)
    return SBlock(block.iter_vars, block.reads, block.writes, block.name_hint, body, block.init, *buffers)
