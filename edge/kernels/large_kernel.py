"""Depthwise convolution with large kernels, 31x31 to 51x51, and with the strips that crosses are made of.

    out[y, x, c] = activation(bias[c] + sum over ky, kx of in[y + ky - top, x + kx - left, c] w[ky, kx, c])

Each block of channels is copied once into a plane of its own, where a pixel's neighbours are neighbours in memory, and
is convolved there along lines (``edge.kernels.lines``): along the rows, or along the columns where the kernel is high
and three columns wide or less. Across the lines, Winograd's short convolution does three kernel lines at once, with up
to half of the multiplications.

    parallel over vectors of channels
        plane = input
        result plane = convolution along lines
        result = epilogue(result plane)

Arithmetic binds: a 51x51 multiplies each value 2601 times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels import lines
from edge.kernels.activation import with_shortcut, with_shortcut_reference
from edge.kernels.axis import Axis
from edge.kernels.core import Core
from edge.kernels.depthwise import convolved
from edge.kernels.lines import Expression, Lines, LineTile
from edge.kernels.template import FLOAT32_BYTES, WEIGHTS, Array, Problem, Template
from edge.kernels.winograd import TAPS


@dataclass(frozen=True)
class LargeKernel(Problem):
    """One depthwise convolution of stride 1.

    Attributes:
        height, width: of the input.
        channels: of input and output.
        kernel: rows and columns.
        padding: rows of zeros above, columns left, rows below, columns right.
        activation: a key of ``activation.EXPRESSIONS``.
        shortcut: whether a tensor like the result is added "before" or "after" the activation, or "none".
    """

    height: int
    width: int
    channels: int
    kernel: tuple[int, int]
    padding: tuple[int, int, int, int]
    activation: str = "none"
    shortcut: str = "none"

    @property
    def rows(self) -> Axis:
        """Output rows over input rows."""
        return Axis(self.height, self.kernel[0], 1, self.padding[0], self.padding[2])

    @property
    def columns(self) -> Axis:
        """Output columns over input columns."""
        return Axis(self.width, self.kernel[1], 1, self.padding[1], self.padding[3])

    @property
    def lines(self) -> Lines:
        """The convolution along its lines: columns where the kernel is a high strip, else rows."""
        across, along = (self.columns, self.rows) if self.upright else (self.rows, self.columns)
        return Lines(
            count=across.inputs,
            length=along.inputs,
            out_count=across.length,
            out_length=along.length,
            first_line=-across.before,
            first=-along.before,
            kernel_lines=across.kernel,
            kernel=along.kernel,
        )

    @property
    def upright(self) -> bool:
        """Whether lines are columns."""
        return self.kernel[1] <= TAPS < self.kernel[0]

    @property
    def macs(self) -> int:
        """Products of the formula with what lies inside the image; the transform needs fewer."""
        return self.channels * self.rows.taps * self.columns.taps

    @property
    def bytes(self) -> int:
        """Input, weights and bias, the shortcut if any, and the result."""
        outputs = self.rows.length * self.columns.length * (1 + (self.shortcut != "none"))
        return FLOAT32_BYTES * self.channels * (self.height * self.width + np.prod(self.kernel).item() + 1 + outputs)

    @property
    def key(self) -> str:
        """Such as "large kernel 3x51 p1,25,1,25 56x56x96"."""
        epilogue = f" {self.activation}" * (self.activation != "none")
        epilogue += f" shortcut {self.shortcut}" * (self.shortcut != "none")
        edges = ",".join(map(str, self.padding))
        shape = f"{self.height}x{self.width}x{self.channels}"
        return f"large kernel {self.kernel[0]}x{self.kernel[1]} p{edges} {shape}{epilogue}"


class LargeKernelTemplate(Template[LargeKernel, LineTile]):
    """Large depthwise kernels; plain weights are (kernel rows, kernel columns, channels), and a bias per channel."""

    name = "large_kernel"
    problems = LargeKernel
    choices = LineTile

    def space(self, problem: LargeKernel, core: Core) -> tuple[LineTile, ...]:
        """See ``lines.space``."""
        return lines.space((problem.lines,), problem.channels, core)

    def default(self, problem: LargeKernel, core: Core) -> LineTile:
        """See ``lines.default``."""
        return lines.default((problem.lines,), problem.channels, core)

    def kernel(self, problem: LargeKernel, choice: LineTile, core: Core) -> tirx.PrimFunc:
        """Arguments: the input (1, height, width, channels), any shortcut, packed weights, bias, the result."""
        geometry, around, vector = problem.lines, lines.margin(choice), choice.channels
        rows, columns = problem.rows.length, problem.columns.length
        blocks, shape = -(-problem.channels // vector), (1, rows, columns, problem.channels)
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(self.name)
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
            source = T.arg("source", T.buffer((1, problem.height, problem.width, problem.channels)))
            shortcut = T.arg("shortcut", T.buffer(shape)) if problem.shortcut != "none" else None
            weights = T.arg(WEIGHTS, T.buffer((blocks, *geometry.packed_shape(choice))))
            bias = T.arg("bias", T.buffer((problem.channels,)))
            result = T.arg("result", T.buffer(shape))
            with T.sblock("root"), T.parallel(blocks) as block:
                first = block * vector
                plane = T.alloc_buffer((problem.height + 2 * around, problem.width + 2 * around, vector))
                sums = T.alloc_buffer((rows, columns, vector))
                convolution = lines.Convolution(geometry, choice)

                def copy_in(row: Expression, column: Expression, lane: Expression) -> None:
                    value = source[0, row, column, first + lane]
                    T.buffer_store(plane, value, [row + around, column + around, lane])

                def copy_out(row: Expression, column: Expression, lane: Expression) -> None:
                    place = (0, row, column, first + lane)
                    value = sums[row, column, lane] + bias[first + lane]
                    other = shortcut[place] if shortcut is not None else None
                    value = with_shortcut(problem.activation, problem.shortcut, value, other)
                    T.buffer_store(result, value, list(place))

                with T.vectorized(vector) as lane:
                    lines.clear(plane, around, lane)
                    convolution.clear(lane)
                lines.each_pixel((problem.height, problem.width), problem.channels, vector, block, copy_in)
                with T.vectorized(vector) as lane:
                    convolution.write(
                        lambda *place: weights[(block, *place, 0)],
                        lambda line, place: plane[(*_pixel(problem, line + around, place + around), lane)],
                        lambda line, place, value: T.buffer_store(sums, value, [*_pixel(problem, line, place), lane]),
                        lane,
                    )
                lines.each_pixel((rows, columns), problem.channels, vector, block, copy_out)
        return builder.get()

    def pack(self, problem: LargeKernel, choice: LineTile, *weights: Array) -> tuple[Array, ...]:
        """The transformed weights, see ``lines.pack``, and the bias."""
        kernel, bias = weights
        across = kernel.swapaxes(0, 1) if problem.upright else kernel
        return lines.pack(problem.lines, choice, across), np.ascontiguousarray(bias, np.float32)

    def reference(self, problem: LargeKernel, *arrays: Array) -> Array:
        """The formula of this module, one kernel position at a time."""
        source, *more, kernel, bias = arrays
        result = convolved(source, kernel, problem.rows, problem.columns) + bias
        return with_shortcut_reference(problem.activation, problem.shortcut, result, *more)


def _pixel(problem: LargeKernel, line: Expression, place: Expression) -> tuple[Expression, Expression]:
    """Row and column of a place on a line."""
    return (place, line) if problem.upright else (line, place)
