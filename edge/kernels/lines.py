"""Long convolutions along lines: what kernels of 3 x K, K x 3 and K x K are made of.

A plane of one vector of channels is convolved with a kernel that is long along one axis, *along the line*, and a
multiple of three wide across it. Across the lines Winograd's short convolution saves multiplications; along the line a
tile of outputs stays in registers while the positions of the input that reach it go by, a few of them unrolled:

    over groups of m lines of the result
        over tiles of positions
            over the m + 2 products of the transform
                tile = 0
                over the kernel's groups of three lines, over positions of the input
                    unrolled:  tile += transformed input * transformed weights
            results = transform of the tiles

The kernel has margins of zeros, so no multiply-add stands behind a condition; positions that no output of the tile
reaches are left out by the loops' bounds. Where the kernel is longer than the image, as in most stages of networks with
large kernels, an output costs one multiply-add for each position of the image, not of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edge.kernels.core import Core
from edge.kernels.template import Array, Choice
from edge.kernels.winograd import TAPS, TRANSFORMS

Expression: TypeAlias = tvm.ir.Expr

COLUMNS = (1, 2, 4, 7, 8, 10, 12, 14, 16)
UNROLLED = (2, 4, 7, 8)
SPARE_REGISTERS = 4
ENOUGH = 6
"""Independent sums that hide the latency of a multiply-add."""


@dataclass(frozen=True)
class LineTile(Choice):
    """How lines are convolved.

    Attributes:
        channels: side by side in a vector.
        lines: of the result that the transform makes at once.
        columns: positions in the register tile.
        unrolled: positions of the input that are straight code.
    """

    channels: int
    lines: int
    columns: int
    unrolled: int

    @property
    def border(self) -> int:
        """Zeros before and behind the kernel, along the line."""
        return self.columns + self.unrolled - 2


@dataclass(frozen=True)
class Lines:
    """The geometry of one convolution along lines; rows are lines if the kernel is wide, columns if it is high.

    Attributes:
        count, length: lines of the input, and positions in each.
        out_count, out_length: the same of the result.
        first_line, first: what the kernel's first line and first position are added to, from the output's: -1 where
            the kernel begins one before.
        kernel_lines, kernel: the kernel's size across the lines and along them.
    """

    count: int
    length: int
    out_count: int
    out_length: int
    first_line: int
    first: int
    kernel_lines: int
    kernel: int

    @property
    def groups(self) -> int:
        """Groups of three kernel lines, the last filled with zeros."""
        return -(-self.kernel_lines // TAPS)

    def chunks(self, tile: LineTile) -> int:
        """Groups of input positions that are unrolled, the last filled with zeros."""
        return -(-self.length // tile.unrolled)

    def packed_shape(self, tile: LineTile) -> tuple[int, ...]:
        """Of one block's transformed weights: products, groups, positions, channels."""
        return tile.lines + 2, self.groups, self.kernel + 2 * tile.border, tile.channels

    def instructions(self, tile: LineTile) -> float:
        """About what one vector of channels takes: multiply-adds, and half as much for a load or a transform's step."""
        tiles, chunks = -(-self.out_length // tile.columns), 0
        for index in range(tiles):
            first = min(index * tile.columns, self.out_length - tile.columns) + self.first
            end = min(self.chunks(tile), (first + self.kernel + tile.columns - 2) // tile.unrolled + 1)
            chunks += max(0, end - max(0, first // tile.unrolled))
        loads = tile.columns + 2 * tile.unrolled - 1
        products = (tile.columns * tile.unrolled + loads / 2) * chunks * self.groups
        transforms = 2 * self.length + 2 * tile.columns * tiles
        return -(-self.out_count // tile.lines) * (tile.lines + 2) * (products + transforms)


def margin(tile: LineTile) -> int:
    """Zeros that a plane needs on all four sides."""
    return tile.lines + 1


def space(lines: tuple[Lines, ...], channels: int, core: Core) -> tuple[LineTile, ...]:
    """Tiles that fit all of some convolutions and whose sums, weights and inputs fit in registers."""
    vector = min(core.lanes, channels)
    tiles = (LineTile(vector, *values) for values in product(TRANSFORMS, COLUMNS, UNROLLED))
    return tuple(
        tile
        for tile in tiles
        if all(tile.lines <= line.out_count and tile.columns <= line.out_length for line in lines)
        and tile.columns + tile.unrolled + SPARE_REGISTERS <= core.registers
    )


def default(lines: tuple[Lines, ...], channels: int, core: Core) -> LineTile:
    """The fewest instructions, with enough independent sums to hide the latency of a multiply-add."""

    def cost(tile: LineTile) -> float:
        return sum(line.instructions(tile) for line in lines) * max(1, ENOUGH / tile.columns)

    return min(space(lines, channels, core), key=cost)


def pack(lines: Lines, tile: LineTile, kernel: Array) -> Array:
    """Transformed weights of all blocks.

    Args:
        lines: the geometry.
        tile: how it is computed.
        kernel: (kernel lines, kernel positions, channels).

    Returns:
        Float32, (blocks, *packed_shape); zeros where the kernel and the last block are filled up.
    """
    products, groups, positions, vector = lines.packed_shape(tile)
    blocks = -(-kernel.shape[2] // vector)
    filled = np.zeros((groups * TAPS, positions, blocks * vector), kernel.dtype)
    filled[: kernel.shape[0], tile.border : tile.border + kernel.shape[1], : kernel.shape[2]] = kernel
    transformed = TRANSFORMS[tile.lines].weights(filled.reshape(groups, TAPS, positions, blocks, vector).swapaxes(0, 1))
    assert transformed.shape == (products, groups, positions, blocks, vector)
    return np.ascontiguousarray(transformed.transpose(3, 0, 1, 2, 4), np.float32)


Read = Callable[[Expression, Expression], Expression]
Write = Callable[[Expression, Expression, Expression], None]


def clear(plane: tirx.Buffer, around: int, lane: Expression) -> None:
    """Zero the margins of a plane (rows, columns, channels)."""
    rows, columns = (int(length) for length in plane.shape[:2])
    with T.grid(around, columns) as (row, column):
        T.buffer_store(plane, T.float32(0), [row, column, lane])
        T.buffer_store(plane, T.float32(0), [rows - 1 - row, column, lane])
    with T.grid(rows, around) as (row, column):
        T.buffer_store(plane, T.float32(0), [row, column, lane])
        T.buffer_store(plane, T.float32(0), [row, columns - 1 - column, lane])


def each_pixel(
    size: tuple[int, int],
    channels: int,
    vector: int,
    block: Expression,
    write: Callable[[Expression, Expression, Expression], None],
) -> None:
    """Loop over the pixels and channels of a block: in whole vectors, but one by one where the last has fewer."""

    def whole() -> None:
        with T.grid(*size) as (row, column), T.vectorized(vector) as lane:
            write(row, column, lane)

    rest = channels % vector
    if not rest:
        whole()
        return
    with T.If(block < channels // vector):
        with T.Then():
            whole()
        with T.Else(), T.grid(*size, rest) as (row, column, lane):
            write(row, column, lane)


class Convolution:
    """Writes one convolution along lines into a kernel."""

    def __init__(self, lines: Lines, tile: LineTile) -> None:
        """Allocate its scratch memory; to be called inside the parallel loop, as threads share nothing."""
        self._lines, self._tile = lines, tile
        self._transform = TRANSFORMS[tile.lines]
        products = tile.lines + 2
        # Transformed lines: of one group of outputs, or for every place where three kernel lines can lie.
        self._starts = 1 if lines.groups == 1 else lines.count + tile.lines + 1
        length = lines.chunks(tile) * tile.unrolled
        self._transformed = T.alloc_buffer((self._starts, products, length, tile.channels))
        self._sums = T.alloc_buffer((tile.columns, tile.channels), scope="local")
        self._products = T.alloc_buffer((products, tile.columns, tile.channels), scope="local")

    def clear(self, lane: Expression) -> None:
        """Zero what fills the last group of positions, which nothing else writes."""
        rest = -self._lines.length % self._tile.unrolled
        with T.grid(self._starts, self._tile.lines + 2, rest) as (start, product_, place):
            T.buffer_store(self._transformed, T.float32(0), [start, product_, self._lines.length + place, lane])

    def write(self, weights: Callable[..., Expression], read: Read, write: Write, lane: Expression) -> None:
        """Write the loops.

        Args:
            weights: the packed weight of the first channel at a product, a group of kernel lines and a kernel position.
            read: the plane's value at a line and a position, from ``-margin`` on.
            write: stores a value of the result at a line and a position; may be called twice for one place.
            lane: of the vectorised loop around all this.
        """
        lines, tile = self._lines, self._tile
        several = lines.groups > 1
        if several:
            with T.serial(self._starts) as start:
                self._transform_inputs(start, start - margin(tile), read, lane)
        with T.serial(-(-lines.out_count // tile.lines)) as group:
            # The last group, and the last tile, end with the last output: some results are computed twice.
            line = T.min(group * tile.lines, lines.out_count - tile.lines)
            start = line + lines.first_line
            # Groups of kernel lines that touch the plane.
            touching = (
                T.max(0, T.floordiv(TAPS - 1 - margin(tile) - start, TAPS)),
                T.min(lines.groups, T.floordiv(lines.count - 1 - start, TAPS) + 1),
            )
            if not several:
                with T.serial(*touching):
                    self._transform_inputs(0, start, read, lane)
            with T.serial(-(-lines.out_length // tile.columns)) as index:
                place = T.min(index * tile.columns, lines.out_length - tile.columns)
                with T.serial(tile.lines + 2) as product_:
                    self._multiply(product_, start, place, touching, weights, lane)
                self._transform_outputs(line, place, write, lane)

    def _transform_inputs(self, start: Expression | int, line: Expression, read: Read, lane: Expression) -> None:
        with T.serial(self._lines.length) as place:
            values = [read(line + index, place) for index in range(self._tile.lines + 2)]
            for product_, value in enumerate(self._transform.inputs(values)):
                T.buffer_store(self._transformed, value, [start, product_, place, lane])

    def _multiply(
        self,
        product_: Expression,
        start: Expression,
        place: Expression,
        touching: tuple[Expression, Expression],
        weights: Callable[..., Expression],
        lane: Expression,
    ) -> None:
        """The sums of one product of the transform, for one tile of positions."""
        lines, tile, sums = self._lines, self._tile, self._sums
        first = place + lines.first
        for column in range(tile.columns):
            T.buffer_store(sums, T.float32(0), [column, lane])
        # Groups of input positions that any column of the tile reaches.
        begin = T.max(0, T.floordiv(first, tile.unrolled))
        end = T.min(lines.chunks(tile), T.floordiv(first + lines.kernel + tile.columns - 2, tile.unrolled) + 1)
        with T.serial(*touching) as group, T.serial(begin, end) as chunk:
            slot = 0 if lines.groups == 1 else start + TAPS * group + margin(tile)
            at = chunk * tile.unrolled
            # Weights from a pointer of their own: LLVM would extend the sum of so many indices once for each of them.
            reach = tile.columns + tile.unrolled - 1
            near = weights(product_, group, at + (tile.unrolled - 1 - first))
            window = T.decl_buffer((reach, tile.channels), data=T.bind(T.address_of(near)))
            for shift, step in product(range(reach), range(tile.unrolled)):
                if 0 <= (column := step + tile.columns - 1 - shift) < tile.columns:
                    value = self._transformed[slot, product_, at + step, lane] * window[shift, lane]
                    T.buffer_store(sums, sums[column, lane] + value, [column, lane])
        for column in range(tile.columns):
            T.buffer_store(self._products, sums[column, lane], [product_, column, lane])

    def _transform_outputs(self, line: Expression, place: Expression, write: Write, lane: Expression) -> None:
        with T.serial(self._tile.columns) as column:
            values = [self._products[index, column, lane] for index in range(self._tile.lines + 2)]
            for index, value in enumerate(self._transform.outputs(values)):
                write(line + index, place + column, value)
