"""What algorithms share that compute their result from several matrix products of scratch matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edge.kernels import statements
from edge.kernels.activation import with_shortcut
from edge.kernels.core import Core
from edge.kernels.product import Expression, Operands, Product
from edge.kernels.statements import Loops


@dataclass(frozen=True)
class PlainProduct:
    """A matrix product without an epilogue; see ``product.Product``."""

    rows: int
    outputs: int
    reduction: int
    bias: bool = False
    activation: str = "none"
    shortcut: str = "none"

    @property
    def size(self) -> tuple[int, int, int]:
        """Rows, outputs and reduction."""
        return self.rows, self.outputs, self.reduction


@contextmanager
def channels(count: int, core: Core) -> Iterator[Expression]:
    """Loop over channels in vectors; the last ends with the last channel, and shares some with the one before."""
    lanes = min(core.lanes, count)
    with T.serial(ceil(count / lanes)) as vector, T.vectorized(lanes) as lane:
        yield T.min(vector * lanes, count - lanes) + lane


def store(problem: Product, given: Operands, place: tuple[Expression, Expression], total: Expression) -> None:
    """Write a problem's result at a row and a channel, from what its products add up to."""
    value = total if given.bias is None else total + given.bias[place[1]]
    other = None if given.shortcut is None else given.shortcut[place]
    T.buffer_store(given.result, with_shortcut(problem.activation, problem.shortcut, value, other), list(place))


def parallel_outside_only(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """A kernel in which loops that are parallel inside of another parallel loop belong to one thread."""

    def change(statement: tirx.Stmt, around: Loops) -> tirx.Stmt:
        inside = any(loop.kind == tirx.ForKind.PARALLEL for loop in around)
        if inside and isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL:
            return tirx.For(statement.loop_var, statement.min, statement.extent, tirx.ForKind.SERIAL, statement.body)
        return statement

    return statements.rewrite(function, change)
