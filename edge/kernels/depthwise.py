"""Depthwise convolution with small kernels: every channel by itself, 3x3 to 7x7, any stride.

    out[y, x, c] = activation(bias[c] + sum over ky, kx of in[s y + ky - top, s x + kx - left, c] w[ky, kx, c])

Channels are the vector: one register holds neighbouring channels of one pixel. A tile of rows x columns of the result
stays in registers while the lines of the input that it needs go by, and a value that is loaded serves every output of
the tile.

What lies outside the image is zero, and is neither stored nor multiplied, yet no multiply-add stands behind a
condition. Blocks of rows that touch the top or the bottom are computed row by row, over the kernel rows that lie
inside. Tiles of columns that touch the left or the right are written apart, without the products that fall outside.

    parallel over blocks of rows: whole tiles inside, single rows at the edges
        over tiles of columns: one loop inside, each by itself at the edges
            over vectors of channels
                tile = bias
                over the lines of the input
                    unrolled, vectorised:  tile += input * weights
                unrolled, vectorised:  result = epilogue(tile)

Arithmetic binds while the lines that overlap stay in a cache: for the 72 multiply-adds of a 3x3, a tile of 2 x 4 loads
42 vectors. With its tensors in memory a 3x3 does 9 multiply-adds for each 8 bytes, and traffic binds on a core that
moves less than 8 bytes in the time of 9 / lanes multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels.activation import with_shortcut, with_shortcut_reference
from edge.kernels.axis import Axis
from edge.kernels.core import Core
from edge.kernels.template import FLOAT32_BYTES, WEIGHTS, Array, Choice, Problem, Template

Expression: TypeAlias = tvm.ir.Expr

ROWS = (1, 2, 3, 4)
COLUMNS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)
ENOUGH = 6
"""Independent sums that hide the latency of a multiply-add."""
SPARE_REGISTERS = 4


@dataclass(frozen=True)
class Depthwise(Problem):
    """One depthwise convolution.

    Attributes:
        height, width: of the input.
        channels: of input and output.
        kernel: rows and columns.
        stride: of rows and columns alike.
        padding: rows of zeros above, columns left, rows below, columns right.
        activation: a key of ``activation.EXPRESSIONS``.
        shortcut: whether a tensor like the result is added "before" or "after" the activation, or "none".
    """

    height: int
    width: int
    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    activation: str = "none"
    shortcut: str = "none"

    @property
    def rows(self) -> Axis:
        """Output rows over input rows."""
        return Axis(self.height, self.kernel[0], self.stride, self.padding[0], self.padding[2])

    @property
    def columns(self) -> Axis:
        """Output columns over input columns."""
        return Axis(self.width, self.kernel[1], self.stride, self.padding[1], self.padding[3])

    @property
    def macs(self) -> int:
        """Products with what lies inside the image; counters that know no padding say kernel area x output."""
        return self.channels * self.rows.taps * self.columns.taps

    @property
    def bytes(self) -> int:
        """Input, weights and bias, the shortcut if any, and the result."""
        outputs = self.rows.length * self.columns.length * self.channels
        inputs = self.height * self.width * self.channels
        weights = (self.kernel[0] * self.kernel[1] + 1) * self.channels
        return FLOAT32_BYTES * (inputs + weights + (1 + (self.shortcut != "none")) * outputs)

    @property
    def key(self) -> str:
        """Such as "depthwise 3x3 s1 p1,1,1,1 56x56x96 relu6"."""
        epilogue = f" {self.activation}" * (self.activation != "none")
        epilogue += f" shortcut {self.shortcut}" * (self.shortcut != "none")
        edges = ",".join(map(str, self.padding))
        shape = f"{self.height}x{self.width}x{self.channels}"
        return f"depthwise {self.kernel[0]}x{self.kernel[1]} s{self.stride} p{edges} {shape}{epilogue}"


@dataclass(frozen=True)
class Tile(Choice):
    """The register tile: rows x columns of outputs, one vector of channels deep."""

    rows: int
    columns: int


class DepthwiseTemplate(Template[Depthwise, Tile]):
    """Depthwise convolution; its plain weights are (kernel rows, kernel columns, channels), and a bias per channel."""

    name = "depthwise"
    problems = Depthwise
    choices = Tile

    def space(self, problem: Depthwise, core: Core) -> tuple[Tile, ...]:
        """Tiles no larger than the result that need no more registers than the core has."""
        tiles = (
            Tile(rows, columns)
            for rows, columns in product(ROWS, COLUMNS)
            if rows <= problem.rows.length and columns <= problem.columns.length
        )
        return tuple(tile for tile in tiles if tile == Tile(1, 1) or _registers(problem, tile, core) <= core.registers)

    def default(self, problem: Depthwise, core: Core) -> Tile:
        """The fewest instructions for the whole image, a load counting half, with enough independent sums."""

        def instructions(rows: int, columns: int) -> float:
            """For one row of tiles."""
            sums, area = rows * columns, problem.kernel[0] * problem.kernel[1]
            loads = problem.rows.reach(rows) * problem.columns.reach(columns) + rows * area
            return -(-problem.columns.length // columns) * (sums * area + loads / 2) * max(1, ENOUGH / sums)

        def cost(tile: Tile) -> float:
            inside = len(problem.rows.interior(tile.rows))
            edge = problem.rows.length - inside * tile.rows
            return inside * instructions(tile.rows, tile.columns) + edge * instructions(1, tile.columns)

        return min(self.space(problem, core), key=cost)

    def kernel(self, problem: Depthwise, choice: Tile, core: Core) -> tirx.PrimFunc:
        """Arguments: the input (1, height, width, channels), any shortcut, weights, bias, the result."""
        rows, columns = problem.rows, problem.columns
        shape = (1, rows.length, columns.length, problem.channels)
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(self.name)
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
            source = T.arg("source", T.buffer((1, problem.height, problem.width, problem.channels)))
            shortcut = T.arg("shortcut", T.buffer(shape)) if problem.shortcut != "none" else None
            weights = T.arg(WEIGHTS, T.buffer((*problem.kernel, problem.channels)))
            bias = T.arg("bias", T.buffer((problem.channels,)))
            result = T.arg("result", T.buffer(shape))
            inside = rows.interior(choice.rows)
            with T.sblock("root"), T.parallel(-(-rows.length // choice.rows)) as block:
                tile = T.alloc_buffer((choice.rows, choice.columns, core.lanes), scope="global")
                tensors = _Tensors(source, weights, bias, shortcut, result, tile)
                first = block * choice.rows
                with T.If(T.And(block >= inside.start, block < inside.stop)):
                    with T.Then():
                        _write_rows(problem, tensors, first, choice, core)
                    with T.Else(), T.serial(T.min(choice.rows, rows.length - first)) as row:
                        _write_rows(problem, tensors, first + row, choice, core, edge=True)
        return builder.get()

    def pack(self, problem: Depthwise, choice: Tile, *weights: Array) -> tuple[Array, ...]:
        """The plain weights as they are."""
        kernel, bias = weights
        return np.ascontiguousarray(kernel, np.float32), np.ascontiguousarray(bias, np.float32)

    def reference(self, problem: Depthwise, *arrays: Array) -> Array:
        """The formula of this module, one kernel position at a time."""
        source, *more, kernel, bias = arrays
        result = convolved(source, kernel, problem.rows, problem.columns) + bias
        return with_shortcut_reference(problem.activation, problem.shortcut, result, *more)


def convolved(source: Array, kernel: Array, rows: Axis, columns: Axis) -> Array:
    """Every channel of an image (1, height, width, channels) by itself, with a kernel (rows, columns, channels)."""
    padded = np.pad(source, ((0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0)))
    result = np.zeros((1, rows.length, columns.length, source.shape[-1]), source.dtype)
    for ky, kx in product(range(rows.kernel), range(columns.kernel)):
        down = slice(ky, ky + (rows.length - 1) * rows.stride + 1, rows.stride)
        across = slice(kx, kx + (columns.length - 1) * columns.stride + 1, columns.stride)
        result += padded[:, down, across] * kernel[ky, kx]
    return result


@dataclass(frozen=True)
class _Tensors:
    source: tirx.Buffer
    weights: tirx.Buffer
    bias: tirx.Buffer
    shortcut: tirx.Buffer | None
    result: tirx.Buffer
    tile: tirx.Buffer


def _registers(problem: Depthwise, tile: Tile, core: Core) -> int:
    """The tile's sums, one line of its input, two weights for each row, and what else the compiler needs."""
    inputs = 0 if core.loads_as_operand else problem.columns.reach(tile.columns)
    return tile.rows * tile.columns + inputs + 2 * tile.rows + SPARE_REGISTERS


def _write_rows(
    problem: Depthwise, tensors: _Tensors, row: Expression, choice: Tile, core: Core, *, edge: bool = False
) -> None:
    """All columns and channels of some rows of the result: a whole tile's inside the image, one at its edge."""
    columns, width = problem.columns, choice.columns
    lanes = min(core.lanes, problem.channels)
    inside = columns.interior(width)

    def write(column: Expression, taps: list[range]) -> None:
        with T.serial(-(-problem.channels // lanes)) as vector:
            # The last vector ends with the last channel: what it shares with the one before is computed twice.
            first = T.min(vector * lanes, problem.channels - lanes)
            with T.vectorized(lanes) as lane:
                _write_tile(problem, tensors, row, column, taps, first + lane, lane, 1 if edge else choice.rows, edge)

    if inside:
        with T.serial(len(inside)) as index:
            write((inside.start + index) * width, [range(problem.kernel[1])] * width)
    for index in range(-(-columns.length // width)):
        if index not in inside:
            # So does the last tile.
            column = min(index * width, columns.length - width)
            write(column, [columns.inside(column + output) for output in range(width)])


def _write_tile(
    problem: Depthwise,
    tensors: _Tensors,
    row: Expression,
    column: Expression,
    taps: list[range],
    channel: Expression,
    lane: Expression,
    rows: int,
    edge: bool,
) -> None:
    """One register tile; ``taps`` are the kernel columns that each of its columns multiplies."""
    tile, source, weights, stride = tensors.tile, tensors.source, tensors.weights, problem.stride
    above, left = row * stride - problem.padding[0], column * stride - problem.padding[1]

    def accumulate(line: Expression, kernel_rows: dict[int, Expression]) -> None:
        """Add the products of one line of the input to every row of the tile that has a kernel row there."""
        for kx in range(problem.kernel[1]):
            for r, ky in kernel_rows.items():
                for c in (c for c, inside in enumerate(taps) if kx in inside):
                    value = source[0, line, left + (c * stride + kx), channel]
                    T.buffer_store(tile, tile[r, c, lane] + value * weights[ky, kx, channel], [r, c, lane])

    def finish(r: int) -> None:
        for c in range(len(taps)):
            place = (0, row + r, column + c, channel)
            other = tensors.shortcut[place] if tensors.shortcut is not None else None
            value = with_shortcut(problem.activation, problem.shortcut, tile[r, c, lane], other)
            T.buffer_store(tensors.result, value, list(place))

    for r, c in product(range(rows), range(len(taps))):
        T.buffer_store(tile, tensors.bias[channel], [r, c, lane])
    if edge:
        # The kernel rows inside the image.
        first = T.max(0, -above)
        with T.serial(first, T.min(problem.kernel[0], problem.height - above)) as ky:
            accumulate(above + ky, {0: ky})
        finish(0)
        return
    for line in range(problem.rows.reach(rows)):
        kernel_rows = {r: line - r * stride for r in range(rows)}
        accumulate(above + line, {r: ky for r, ky in kernel_rows.items() if 0 <= ky < problem.kernel[0]})
        for r, ky in kernel_rows.items():
            if ky == problem.kernel[0] - 1:
                finish(r)
