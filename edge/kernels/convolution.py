"""Convolution with a dense kernel: any size, strides and padding, with bias, activation and shortcut in its epilogue.

    y[i, j, o] = activation(sum over (dy, dx, c) of x[s i + dy - top, s j + dx - left, c] w[o, c, dy, dx] + bias[o])

The channels that it reads may be the first of an image that has more: the others are neither read nor written. The
input is copied into a scratch image with a border of zeros, in which k neighbouring positions lie one after the other:
the convolution is a matrix product with k stretches (implicit im2col), and none of its loops has a condition. Where
nothing is padded and all channels are read, the image itself is such a scratch image, and nothing is copied.

Where the image's channels come first, as a network's input has them, the scratch image has a row of each channel after
the other, so that what a window covers is again in rows at equal distances: a stretch for each row of the kernel and
each channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels import gemm, product
from edge.kernels.activation import with_shortcut_reference
from edge.kernels.axis import Axis
from edge.kernels.core import Core
from edge.kernels.gemm import Tile
from edge.kernels.product import Expression, Stretch
from edge.kernels.template import FLOAT32_BYTES, Array, Problem, Template

ADDRESSES = 16
"""Instructions for the addresses of a tile's rows, where they lie in two lines of the result."""


@dataclass(frozen=True)
class ConvolutionProblem(Problem):
    """A convolution of the first channels of an image, or of all.

    Attributes:
        height, width: of the image.
        channels: of the image.
        inputs: the first of them, which the convolution reads.
        outputs: channels of the result.
        kernel: rows and columns.
        strides: of rows and columns.
        padding: rows of zeros above, columns left, rows below, columns right.
        bias: whether there is one.
        activation: a name that ``edge.kernels.activation`` knows.
        shortcut: whether a tensor like the result is added "before" or "after" the activation, or "none".
        layout: of the image, "NHWC" or "NCHW".
    """

    height: int
    width: int
    channels: int
    inputs: int
    outputs: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    bias: bool = False
    activation: str = "none"
    shortcut: str = "none"
    layout: str = "NHWC"

    @property
    def down(self) -> Axis:
        """Rows of the result over rows of the image."""
        return Axis(self.height, self.kernel[0], self.strides[0], self.padding[0], self.padding[2])

    @property
    def across(self) -> Axis:
        """Columns of the result over columns of the image."""
        return Axis(self.width, self.kernel[1], self.strides[1], self.padding[1], self.padding[3])

    @property
    def rows(self) -> int:
        """Positions of the result."""
        return self.down.length * self.across.length

    @property
    def reduction(self) -> int:
        """Steps of the sum for one element of the result."""
        return self.kernel[0] * self.kernel[1] * self.inputs

    @property
    def macs(self) -> int:
        """As if there were no border."""
        return self.rows * self.outputs * self.reduction

    @property
    def bytes(self) -> int:
        """What the windows cover of the image, weights, bias, shortcut and result."""
        covered = self.down.covered * self.across.covered * self.inputs
        results = self.rows * self.outputs * (1 if self.shortcut == "none" else 2)
        return FLOAT32_BYTES * (covered + results + self.outputs * (self.reduction + self.bias))

    @property
    def key(self) -> str:
        """Such as "convolution 3x3 s2 p1,1,1,1 56x56x64→128 bias relu"."""
        strides = "x".join(map(str, self.strides if self.strides[0] != self.strides[1] else self.strides[:1]))
        padding = ",".join(map(str, self.padding))
        words = [f"convolution {self.kernel[0]}x{self.kernel[1]} s{strides} p{padding}"]
        words += [f"{self.height}x{self.width}x{self.inputs}→{self.outputs}"]
        words += [f"of {self.channels}"] if self.inputs < self.channels else []
        words += ["bias"] if self.bias else []
        words += [f"shortcut {self.shortcut} {self.activation}"] if self.shortcut != "none" else [self.activation]
        words += [self.layout] if self.layout != "NHWC" else []
        return " ".join(word for word in words if word != "none")


class Convolution(Template[ConvolutionProblem, Tile]):
    """See the module.

    The kernel's arguments: the image (height, width, channels), or (channels, height, width) where its channels come
    first; the shortcut (rows, outputs); weights and bias as packed; the result (rows, outputs). The plain weights are
    (outputs, inputs, kernel rows, kernel columns), and the bias (outputs).
    """

    name = "convolution"
    problems = ConvolutionProblem
    choices = Tile

    def space(self, problem: ConvolutionProblem, core: Core) -> tuple[Tile, ...]:
        """The product's."""
        return gemm.space(problem.rows, problem.outputs, problem.reduction, core)

    def default(self, problem: ConvolutionProblem, core: Core) -> Tile:
        """The fewest instructions by estimate: the product's, and those for the addresses of a tile's rows.

        Where every tile lies in one line of the result, its rows are at equal distances, and have one address. Where
        some tiles do not, each stretch computes them.
        """

        def cost(tile: Tile) -> int:
            instructions = gemm.estimate(problem.rows, problem.outputs, problem.reduction, tile)
            if problem.across.length % tile.rows == 0:
                return instructions
            tiles = ceil(problem.rows / tile.rows) * ceil(problem.outputs / tile.columns)
            return instructions + tiles * problem.kernel[0] * _planes(problem) * ADDRESSES

        return min(self.space(problem, core), key=cost)

    def kernel(self, problem: ConvolutionProblem, choice: Tile, core: Core) -> tirx.PrimFunc:
        """See the class for the arguments."""
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name("convolution")
            T.func_attr({"tirx.noalias": True})
            image = product.argument("input", *_shape(problem))
            given = product.operands(problem)
            scratch = _copy(problem, image) if _is_copied(problem) else None

            def source(row: Expression, x: Expression) -> Expression:
                return _at(problem, image, row, x) if scratch is None else scratch[row, x]

            stretches = [_stretch(problem, source)]
            product.write(problem, given, stretches, choice)
        function = product.schedule(builder.get(), problem, stretches, choice, core)
        if _is_copied(problem):
            function = _schedule_copy(function, problem, core)
        return function.with_attr("tirx.is_scheduled", True)

    def pack(self, problem: ConvolutionProblem, choice: Tile, *weights: Array) -> tuple[Array, ...]:
        """Panels, in the order in which the scratch image is read, and the bias as it is."""
        kernels, *bias = weights
        ordered = kernels.transpose((0, 2, 1, 3) if problem.layout == "NCHW" else (0, 2, 3, 1))
        matrix = ordered.reshape(problem.outputs, problem.reduction)
        return gemm.constants(matrix, choice, *bias)

    def reference(self, problem: ConvolutionProblem, *arrays: Array) -> Array:
        """The formula of the module, one kernel position at a time."""
        image, *waiting = arrays
        shortcut = [waiting.pop(0)] if problem.shortcut != "none" else []
        kernels, *bias = waiting
        if problem.layout == "NCHW":
            image = image.transpose(1, 2, 0)
        top, left, bottom, right = problem.padding
        padded = np.pad(image[..., : problem.inputs], ((top, bottom), (left, right), (0, 0)))
        down, across = problem.down, problem.across
        total = np.zeros((down.length, across.length, problem.outputs), image.dtype)
        for dy in range(problem.kernel[0]):
            for dx in range(problem.kernel[1]):
                lines = padded[dy :: down.stride][: down.length]
                total += lines[:, dx :: across.stride][:, : across.length] @ kernels[:, :, dy, dx].T
        result = total.reshape(problem.rows, problem.outputs) + sum(bias)
        return with_shortcut_reference(problem.activation, problem.shortcut, result, *shortcut)


def _shape(problem: ConvolutionProblem) -> tuple[int, int, int]:
    if problem.layout == "NCHW":
        return (problem.channels, problem.height, problem.width)
    return (problem.height, problem.width, problem.channels)


def _depth(problem: ConvolutionProblem) -> int:
    """Channels that lie side by side in a row of the scratch image."""
    return 1 if problem.layout == "NCHW" else problem.inputs


def _planes(problem: ConvolutionProblem) -> int:
    """Rows of the scratch image that one row of the image becomes."""
    return problem.inputs // _depth(problem)


def _is_copied(problem: ConvolutionProblem) -> bool:
    """Whether the image cannot be read where it lies."""
    return problem.inputs < problem.channels or any(problem.padding) or problem.layout == "NCHW"


def _at(problem: ConvolutionProblem, image: tirx.Buffer, row: Expression, x: Expression) -> Expression:
    """The image's element where it lies in the scratch image; ``x`` goes over columns and the channels in each."""
    if problem.layout == "NCHW":
        return image[row % problem.inputs, row // problem.inputs, x]
    return image[row, x // problem.inputs, x % problem.inputs]


def _stretch(problem: ConvolutionProblem, source: Callable[[Expression, Expression], Expression]) -> Stretch:
    """The sum over the rows that a window covers of the scratch image, or of what takes its place."""
    planes, depth, width = _planes(problem), _depth(problem), problem.across.length
    down, across = problem.strides
    length = problem.kernel[1] * depth

    def read(row: Expression, repeat: Expression, step: Expression) -> Expression:
        return source(row // width * (down * planes) + repeat, row % width * (across * depth) + step)

    return Stretch(0, length, read, repeats=problem.kernel[0] * planes, period=length)


@dataclass(frozen=True)
class _Part:
    """A rectangle of the scratch image: zeros, or ``inside``, the image."""

    name: str
    first_row: int
    rows: int
    first_column: int
    columns: int


def _parts(problem: ConvolutionProblem) -> tuple[_Part, ...]:
    """The scratch image, which is what the windows cover, in parts none of which needs a condition."""
    down, across, planes, depth = problem.down, problem.across, _planes(problem), _depth(problem)
    height, width = down.reach(down.length), across.reach(across.length)
    above, left = min(down.before, height), min(across.before, width)
    below, right = above + down.covered, left + across.covered
    parts = (
        ("above", 0, above, 0, width),
        ("left", above, down.covered, 0, left),
        ("inside", above, down.covered, left, across.covered),
        ("right", above, down.covered, right, width - right),
        ("below", below, height - below, 0, width),
    )
    return tuple(
        _Part(name, row * planes, rows * planes, column * depth, columns * depth)
        for name, row, rows, column, columns in parts
        if rows > 0 and columns > 0
    )


def _copy(problem: ConvolutionProblem, image: tirx.Buffer) -> tirx.Buffer:
    """Write the scratch image (rows, columns of channels)."""
    height = problem.down.reach(problem.down.length) * _planes(problem)
    width = problem.across.reach(problem.across.length) * _depth(problem)
    scratch = T.sblock_alloc_buffer((height, width), "float32")
    for part in _parts(problem):
        with T.sblock(part.name), T.grid(part.rows, part.columns) as axes, T.sblock(f"fill_{part.name}"):
            y, x = T.axis.remap("SS", list(axes))
            value = _at(problem, image, y, x) if part.name == "inside" else tirx.const(0, "float32")
            T.buffer_store(scratch, value, [part.first_row + y, part.first_column + x])
    return scratch


def _schedule_copy(function: tirx.PrimFunc, problem: ConvolutionProblem, core: Core) -> tirx.PrimFunc:
    scheduler = Schedule(tvm.IRModule({"main": function}))
    for part in _parts(problem):
        row, column = scheduler.get_loops(scheduler.get_sblock(f"fill_{part.name}"))
        # What is copied is contiguous in a whole row, or in a position of an image that has more channels.
        piecemeal = part.name == "inside" and problem.layout == "NHWC" and problem.inputs < problem.channels
        _, piece = scheduler.split(column, [None, _piece(problem.inputs if piecemeal else part.columns, core)])
        scheduler.parallel(row)
        scheduler.vectorize(piece)
    return scheduler.mod["main"]


def _piece(length: int, core: Core) -> int:
    """How many elements are copied at a time: whole registers, where the length divides into them."""
    divisors = [n for n in range(1, min(length, 8 * core.lanes) + 1) if length % n == 0]
    return max(divisors, key=lambda n: (n % core.lanes == 0, n))
