"""Shift-wise convolution: a cross of two depthwise strips, 3 x K along the rows and K x 3 along the columns.

    out[y, x, c] = bias[c] + sum over u, v of in[y + u - 1, x + v + left, c] across[u, v, c]
                           + sum over u, v of in[y + u + top, x + v - 1, c] down[u, v, c]

It is what many small convolutions of each channel make, shifted along the rows and along the columns and added up
(arXiv:2401.12736): all of it is linear, so the filters that land on the same place are one filter, and with them the
identity and the shortcut. For a filter of each channel, the strips are 9 to 12 multiply-adds, where its small
convolution and its eight shifted additions one by one are 17 operations. Of some channels, the *ghosts*, nothing is
left but the middle tap.

The strips are convolved as in ``edge.kernels.lines``, and end where the last tap that is not zero ends, on either side
by itself.

    parallel over vectors of the channels that are no ghosts
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
from edge.kernels.depthwise import convolved
from edge.kernels.lines import Expression, Lines, LineTile
from edge.kernels.template import FLOAT32_BYTES, Array, Problem, Template

SIDE = 3
"""Of the strips, across their length."""


@dataclass(frozen=True)
class Shiftwise(Problem):
    """One shift-wise operator.

    Attributes:
        height, width: of the image, in and out.
        channels: in and out.
        ghosts: the channels that have the middle tap only, in ascending order.
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
    def of(
        cls, size: tuple[int, int, int], across: Array, down: Array, left: int, top: int
    ) -> tuple[Self, Array, Array]:
        """The problem of two strips that reaches as far as their taps that are not zero.

        Args:
            size: height, width and channels.
            across: (3, columns, channels).
            down: (rows, 3, channels).
            left: the first column of ``across``, from the output's.
            top: the first row of ``down``.

        Returns:
            The problem, and what is left of the strips.
        """

        def reach(taps: Array, first: int) -> tuple[int, int]:
            # The middle is always there, for the ghosts.
            places = first + np.flatnonzero(taps)
            return int(places.min(initial=-1)), int(places.max(initial=1))

        def cut(strip: Array, axis: int, first: int, reach: tuple[int, int]) -> Array:
            edges = [(0, 0)] * 3
            edges[axis] = (max(0, first - reach[0]), max(0, reach[1] + 1 - first - strip.shape[axis]))
            start = max(0, reach[0] - first)
            return np.pad(strip, edges).take(range(start, start + reach[1] - reach[0] + 1), axis)

        columns, rows = reach(np.count_nonzero(across, (0, 2)), left), reach(np.count_nonzero(down, (1, 2)), top)
        across, down = cut(across, 1, left, columns), cut(down, 0, top, rows)
        taps = (across != 0).sum((0, 1)) - (across[1, -columns[0]] != 0) + (down != 0).sum((0, 1))
        return cls(*size, tuple(map(int, np.flatnonzero(taps == 0))), columns, rows), across, down

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
        """Input, strips, middle taps and bias, and the result."""
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

    Its plain weights: the strips (3, columns, channels) and (rows, 3, channels), as long as the problem says, and the
    bias (channels).
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
        """Arguments: the input (1, height, width, channels), both packed strips, the middle taps, bias, the result."""
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
            middle = T.arg("middle", T.buffer((problem.channels,)))
            bias = T.arg("bias", T.buffer((problem.channels,)))
            result = T.arg("result", T.buffer(shape))
            with T.sblock("root"):
                with T.parallel(blocks) as block:
                    first = block * vector
                    channel = T.alloc_buffer((vector,), "int32", scope="local")
                    plane = T.alloc_buffer((height + 2 * around, width + 2 * around, vector))
                    sums = [T.alloc_buffer((height, width, vector)) for _ in packed]
                    convolutions = [lines.Convolution(strip, choice) for strip in problem.strips]

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
                    # Not of what fills the last vector: these are copies of its last channel.
                    with T.grid(height, width) as (row, column):
                        for lane in range(vector):
                            with T.If(first + lane < rep), T.Then():
                                value = sums[0][row, column, lane] + sums[1][row, column, lane]
                                place = [0, row, column, channel[lane]]
                                T.buffer_store(result, value + bias[channel[lane]], place)
                if problem.ghosts:
                    with T.parallel(height) as row, T.serial(width) as column:
                        for ghost in problem.ghosts:
                            value = source[0, row, column, ghost] * middle[ghost] + bias[ghost]
                            T.buffer_store(result, value, [0, row, column, ghost])
        return builder.get()

    def pack(self, problem: Shiftwise, choice: LineTile, *weights: Array) -> tuple[Array, ...]:
        """Both strips without the ghosts, transformed, see ``lines.pack``; the middle taps, and the bias."""
        across, down, bias = weights
        kept = np.setdiff1d(np.arange(problem.channels), problem.ghosts)
        strips = (across, down.swapaxes(0, 1))  # lines are columns
        packed = (lines.pack(line, choice, taps[..., kept]) for line, taps in zip(problem.strips, strips, strict=True))
        middle = across[1, -problem.across[0]]
        return *packed, np.ascontiguousarray(middle, np.float32), np.ascontiguousarray(bias, np.float32)

    def reference(self, problem: Shiftwise, *arrays: Array) -> Array:
        """The formula of this module, one tap at a time."""
        source, across, down, bias = arrays
        (left, right), (above, below) = problem.across, problem.down
        rows, columns = Axis(problem.height, SIDE, 1, 1, 1), Axis(problem.width, SIDE, 1, 1, 1)
        horizontal = convolved(source, across, rows, Axis(problem.width, right - left + 1, 1, -left, right))
        return (
            horizontal
            + convolved(source, down, Axis(problem.height, below - above + 1, 1, -above, below), columns)
            + bias
        )


def _rep_channel(problem: Shiftwise, index: Expression) -> Expression:
    """The channel of the input that is the rep channel of an index: one more for each ghost before it."""
    channel = index
    for before, ghost in enumerate(problem.ghosts):
        channel = channel + T.cast(index >= ghost - before, "int32")
    return channel
