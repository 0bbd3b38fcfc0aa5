"""One loop instead of several that follow each other and do the same number of passes: what they share stays near."""

from __future__ import annotations

from itertools import groupby

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV

from edge.kernels import statements
from edge.kernels.statements import Loops

KIND = "edge.merge"


def mark(scheduler: Schedule, loop: LoopRV, name: str) -> None:
    """Name a loop for ``merge``; those that are to be one have the same name."""
    statements.mark(scheduler, loop, KIND, name)


def merge(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Make one loop of each run of loops of one name; the marks go. Their passes must not depend on each other.

    for p: a(p)                for p:
    for q: b(q)       ->           a(p)
                                   for q from p, once: b(q)
    """

    def change(statement: tirx.Stmt, _: Loops) -> tirx.Stmt:
        if isinstance(statement, tirx.SeqStmt):
            runs = groupby(statement.seq, key=lambda part: statements.marked(part, KIND))
            parts = [part for name, run in runs for part in (run if name is None else [_merged(list(run))])]
            return parts[0] if len(parts) == 1 else tirx.SeqStmt(parts)
        return statement

    def unmark(statement: tirx.Stmt, _: Loops) -> tirx.Stmt:
        lone = statements.marked(statement, KIND) is not None
        return statements.loop(statement, statement.body, without=KIND) if lone else statement

    return statements.rewrite(statements.rewrite(function, change), unmark)


def _merged(loops: list[tirx.For]) -> tirx.For:
    first, *others = loops
    if not others:
        return first
    once = [tirx.For(other.loop_var, first.loop_var, 1, tirx.ForKind.SERIAL, other.body) for other in others]
    return statements.loop(first, tirx.SeqStmt([first.body, *once]))
