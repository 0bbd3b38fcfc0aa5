"""Shift-wise convolution: many small convolutions of each channel, shifted and added up, so that few taps reach far.

Each *rep* channel x has n filters of 3 x 3; y_i is its convolution with filter i, over two rows and columns of padding.
Each y_i is added several times: shifted along the rows by a table's offsets, along the columns by another's, and for
some of them not at all. The other channels, the *ghosts*, pass; the result has them behind the rep channels.

    H = sum over i, g of y_i[r + 1, c - h(i, g)]      V = sum over i, g of y_i[r - v(i, g), c + 1]
    I = sum over g of y_i(g)[r + 1, c + 1]
    out = scale * concat(s1 H + s2 V + s3 I + x, ghosts) + bias

(Shift-wise convolution: arXiv:2401.12736, and the authors' released code for the offsets and the padding.)

All of it is linear, so the filters that land on the same offset are summed when the weights are packed, and with them
the identity's, the shortcut and the scales. What is left is one strip of 3 x K along the rows and one of K x 3 along
the columns. A pruned filter is a term less in these sums, and a strip ends where the last filter that is left ends, on
either side by itself. The strips are convolved as in ``edge.kernels.lines``: for a filter of each channel, that is 9 to
12 multiply-adds, where its small convolution and its eight shifted additions one by one are 17 operations.

    parallel over vectors of rep channels
        plane = their input, gathered
        two result planes = convolutions along the rows and along the columns
        result = their sum + bias
    parallel over rows
        result = ghosts

Arithmetic binds. Each input value is read once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels import lines
from edge.kernels.axis import Axis
from edge.kernels.core import Core
from edge.kernels.lines import Expression, Lines, LineTile
from edge.kernels.template import FLOAT32_BYTES, Array, Problem, Template

SIDE = 3
"""Of a filter; the padding of its convolution is one less."""


@dataclass(frozen=True)
class Shiftwise(Problem):
    """One shift-wise operator.

    Attributes:
        height, width: of the image, in and out.
        channels: in and out.
        ghosts: the channels of the input that pass, in ascending order.
        across: first and last column that the horizontal strip reaches, from the output's.
        down: first and last row that the vertical strip reaches.
    """

    height: int
    width: int
    channels: int
    ghosts: tuple[int, ...]
    across: tuple[int, int]
    down: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int, int], ghosts: tuple[int, ...], filters: Array, offsets: Array) -> Self:
        """The problem whose strips reach as far as the filters that are not zero.

        Args:
            size: height, width and channels.
            ghosts: the channels that pass.
            filters: (rep channels x n, 3, 3).
            offsets: (rep channels x n, 2 g), the horizontal ones first.
        """
        alive = offsets[np.any(filters != 0, axis=(1, 2))]

        def reach(shifts: Array) -> tuple[int, int]:
            # The middle taps, for the identity and the shortcut, are in the horizontal strip; harmless in the other.
            first, last = (1 - SIDE - int(shift) for shift in (shifts.max(initial=-1), shifts.min(initial=-1)))
            return first, last + SIDE - 1

        across, down = np.split(alive, 2, axis=1)
        return cls(*size, ghosts, reach(across), reach(down))

    @property
    def rep(self) -> int:
        """Channels that are convolved."""
        return self.channels - len(self.ghosts)

    @property
    def strips(self) -> tuple[Lines, Lines]:
        """The convolution along the rows and the one along the columns."""
        return _strip(self.height, self.width, self.across), _strip(self.width, self.height, self.down)

    @property
    def macs(self) -> int:
        """Taps of the cross-shaped kernel inside the image, and one for each ghost; the transforms need fewer."""
        total = 0
        for axis, other, reach in ((self.width, self.height, self.across), (self.height, self.width, self.down)):
            total += Axis(axis, reach[1] - reach[0] + 1, 1, -reach[0], reach[1]).taps * Axis(other, SIDE, 1, 1, 1).taps
        middle = Axis(self.width, SIDE, 1, 1, 1).taps * Axis(self.height, SIDE, 1, 1, 1).taps
        return self.rep * (total - middle) + len(self.ghosts) * self.height * self.width

    @property
    def bytes(self) -> int:
        """Input, strips, scale and bias, and the result."""
        taps = sum(SIDE * strip.kernel for strip in self.strips)
        return FLOAT32_BYTES * (self.channels * (2 * self.height * self.width + 2) + self.rep * taps)

    @property
    def key(self) -> str:
        """Such as "shiftwise 56x56x80 across -25..25 down -25..25 ghosts 20 3f2a9c1b"."""
        reach = f"across {self.across[0]}..{self.across[1]} down {self.down[0]}..{self.down[1]}"
        digest = hashlib.sha256(repr(self.ghosts).encode()).hexdigest()[:8]
        return f"shiftwise {self.height}x{self.width}x{self.channels} {reach} ghosts {len(self.ghosts)} {digest}"


def _strip(count: int, length: int, reach: tuple[int, int]) -> Lines:
    return Lines(
        count=count,
        length=length,
        out_count=count,
        out_length=length,
        first_line=-1,
        first=reach[0],
        kernel_lines=SIDE,
        kernel=reach[1] - reach[0] + 1,
    )


class ShiftwiseTemplate(Template[Shiftwise, LineTile]):
    """The shift-wise operator.

    Its plain weights: filters (rep channels x n, 3, 3); offsets (rep channels x n, 2 g), the horizontal ones first;
    the filters of the identity (rep channels, g), each from 0 to n - 1; the scales of H, V and I (3, rep channels);
    scale and bias of the result (channels).
    """

    name = "shiftwise"
    problems = Shiftwise
    choices = LineTile

    def space(self, problem: Shiftwise, core: Core) -> tuple[LineTile, ...]:
        """See ``lines.space``."""
        return lines.space(problem.strips, problem.rep, core)

    def default(self, problem: Shiftwise, core: Core) -> LineTile:
        """See ``lines.default``."""
        return lines.default(problem.strips, problem.rep, core)

    def kernel(self, problem: Shiftwise, choice: LineTile, core: Core) -> tirx.PrimFunc:
        """Arguments: the input (1, height, width, channels), both packed strips, scale, bias, the result."""
        height, width, vector, rep = problem.height, problem.width, choice.channels, problem.rep
        around, blocks, shape = lines.margin(choice), -(-rep // vector), (1, height, width, problem.channels)
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(self.name)
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
            source = T.arg("source", T.buffer(shape))
            packed = [
                T.arg(name, T.buffer((blocks, *strip.packed_shape(choice))))
                for name, strip in zip(("across", "down"), problem.strips, strict=True)
            ]
            scale = T.arg("scale", T.buffer((problem.channels,)))
            bias = T.arg("bias", T.buffer((problem.channels,)))
            result = T.arg("result", T.buffer(shape))
            with T.sblock("root"):
                with T.parallel(blocks) as block:
                    first = block * vector
                    channel = T.alloc_buffer((vector,), "int32", scope="local")
                    plane = T.alloc_buffer((height + 2 * around, width + 2 * around, vector))
                    sums = [T.alloc_buffer((height, width, vector)) for _ in packed]
                    convolutions = [lines.Convolution(strip, choice) for strip in problem.strips]

                    def copy_out(row: Expression, column: Expression, lane: Expression) -> None:
                        value = sums[0][row, column, lane] + sums[1][row, column, lane] + bias[first + lane]
                        T.buffer_store(result, value, [0, row, column, first + lane])

                    with T.serial(vector) as lane:
                        T.buffer_store(channel, _rep_channel(problem, T.min(first + lane, rep - 1)), [lane])
                    with T.vectorized(vector) as lane:
                        lines.clear(plane, around, lane)
                        for convolution in convolutions:
                            convolution.clear(lane)
                    with T.grid(height, width) as (row, column):
                        for lane in range(vector):
                            value = source[0, row, column, channel[lane]]
                            T.buffer_store(plane, value, [row + around, column + around, lane])
                    with T.vectorized(vector) as lane:
                        convolutions[0].write(
                            lambda *place: packed[0][(block, *place, 0)],
                            lambda row, column: plane[row + around, column + around, lane],
                            lambda row, column, value: T.buffer_store(sums[0], value, [row, column, lane]),
                            lane,
                        )
                        convolutions[1].write(
                            lambda *place: packed[1][(block, *place, 0)],
                            lambda column, row: plane[row + around, column + around, lane],
                            lambda column, row, value: T.buffer_store(sums[1], value, [row, column, lane]),
                            lane,
                        )
                    lines.each_pixel((height, width), rep, vector, block, copy_out)
                if problem.ghosts:
                    with T.parallel(height) as row, T.serial(width) as column:
                        for to, ghost in enumerate(problem.ghosts, rep):
                            value = source[0, row, column, ghost] * scale[to] + bias[to]
                            T.buffer_store(result, value, [0, row, column, to])
        return builder.get()

    def pack(self, problem: Shiftwise, choice: LineTile, *weights: Array) -> tuple[Array, ...]:
        """Both strips, transformed, see ``lines.pack``; scale and bias."""
        filters, offsets, identity, branches, scale, bias = weights
        rep, count = problem.rep, filters.shape[0] // problem.rep
        filters = filters.reshape(rep, count, SIDE, SIDE)
        tables = [table.reshape(rep, count, -1).astype(int) for table in np.split(offsets, 2, axis=1)]
        middle = filters[np.arange(rep)[:, None], identity.astype(int)].sum(axis=1)
        upright = filters.swapaxes(2, 3)  # lines are columns
        strips = []
        for kernels, table, branch, strip in zip((filters, upright), tables, branches[:2], problem.strips, strict=True):
            taps = np.zeros((SIDE, strip.kernel, rep), filters.dtype)
            for o, i, g in np.ndindex(*table.shape):
                if kernels[o, i].any():
                    place = 1 - SIDE - table[o, i, g] - strip.first
                    taps[:, place : place + SIDE, o] += branch[o] * kernels[o, i]
            strips.append(taps)
        at = -1 - problem.across[0]
        strips[0][:, at : at + SIDE] += (branches[2][:, None, None] * middle).transpose(1, 2, 0)
        strips[0][1, at + 1] += 1
        packed = (
            lines.pack(line, choice, taps * scale[:rep]) for line, taps in zip(problem.strips, strips, strict=True)
        )
        return *packed, np.ascontiguousarray(scale, np.float32), np.ascontiguousarray(bias, np.float32)

    def reference(self, problem: Shiftwise, *arrays: Array) -> Array:
        """The formulas of this module, one filter and one shift at a time."""
        source, filters, offsets, identity, branches, scale, bias = arrays
        height, width, rep = problem.height, problem.width, problem.rep
        kept = np.setdiff1d(np.arange(problem.channels), problem.ghosts)
        count = len(filters) // rep
        result = np.concatenate((source[..., kept], source[..., list(problem.ghosts)]), axis=-1)
        rows, columns = np.arange(height), np.arange(width)

        def at(values: Array, row: Array, column: Array) -> Array:
            """The values at rows and columns; zero where there are none."""
            inside = ((row >= 0) & (row < values.shape[0]))[:, None] & ((column >= 0) & (column < values.shape[1]))
            return np.where(inside, values[np.ix_(row % values.shape[0], column % values.shape[1])], 0)

        for o in range(rep):
            padded = np.pad(source[0, :, :, kept[o]], SIDE - 1)
            small = [
                sum(
                    filters[o * count + i, u, v] * padded[u : u + height + SIDE - 1, v : v + width + SIDE - 1]
                    for u, v in np.ndindex(SIDE, SIDE)
                )
                for i in range(count)
            ]
            for i, y in enumerate(small):
                across, down = np.split(offsets[o * count + i].astype(int), 2)
                for shift in across:
                    result[0, :, :, o] += branches[0, o] * at(y, rows + 1, columns - shift)
                for shift in down:
                    result[0, :, :, o] += branches[1, o] * at(y, rows - shift, columns + 1)
            for i in identity[o].astype(int):
                result[0, :, :, o] += branches[2, o] * at(small[i], rows + 1, columns + 1)
        return scale * result + bias


def _rep_channel(problem: Shiftwise, index: Expression) -> Expression:
    """The channel of the input that is the rep channel of an index: one more for each ghost before it."""
    channel = index
    for before, ghost in enumerate(problem.ghosts):
        channel = channel + T.cast(index >= ghost - before, "int32")
    return channel
