"""A dense convolution as its formula has it: a matrix product whose rows are the image's windows (implicit im2col).

The channels that it reads may be the first of an image that has more: the others are neither read nor written. The
input is copied into a scratch image with a border of zeros, in which k neighbouring positions lie one after the other:
the convolution is a matrix product with k stretches, and none of its loops has a condition. Where nothing is padded and
all channels are read, the image itself is such a scratch image, and nothing is copied.

Where the image's channels come first, as a network's input has them, the scratch image has a row of each channel after
the other, so that what a window covers is again in rows at equal distances: a stretch for each row of the kernel and
each channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels import gemm, product
from edge.kernels.convolution_problem import ConvolutionProblem, ConvolutionTile
from edge.kernels.core import Core
from edge.kernels.product import Expression, Stretch
from edge.kernels.template import Array

ADDRESSES = 16
"""Instructions for the addresses of a tile's rows, where they lie in two lines of the result."""


def space(problem: ConvolutionProblem, outputs: int, core: Core) -> tuple[ConvolutionTile, ...]:
    """The product's; ``outputs`` is one."""
    tiles = gemm.space(problem.rows, problem.outputs, problem.reduction, core)
    return tuple(ConvolutionTile.of(tile, outputs) for tile in tiles)


def instructions(problem: ConvolutionProblem, tile: ConvolutionTile, core: Core) -> int:
    """The product's by its estimate, and those for the addresses of a tile's rows.

    Where every tile lies in one line of the result, its rows are at equal distances, and have one address. Where some
    tiles do not, each stretch computes them.
    """
    estimate = gemm.estimate(problem.rows, problem.outputs, problem.reduction, tile)
    if problem.across.length % tile.rows == 0:
        return estimate
    tiles = ceil(problem.rows / tile.rows) * ceil(problem.outputs / tile.columns)
    return estimate + tiles * problem.kernel[0] * _planes(problem) * ADDRESSES


def pack(problem: ConvolutionProblem, tile: ConvolutionTile, kernels: Array) -> Array:
    """Panels of weights (outputs, inputs, kernel rows, kernel columns), in the order in which the image is read."""
    ordered = kernels.transpose((0, 2, 1, 3) if problem.layout == "NCHW" else (0, 2, 3, 1))
    return gemm.pack(ordered.reshape(problem.outputs, problem.reduction), tile)


def kernel(problem: ConvolutionProblem, tile: ConvolutionTile, core: Core) -> tirx.PrimFunc:
    """See ``convolution.Convolution`` for the arguments."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("convolution")
        T.func_attr({"tirx.noalias": True})
        image = product.argument("input", *_shape(problem))
        given = product.operands(problem)
        scratch = _copy(problem, image) if _is_copied(problem) else None

        def source(row: Expression, x: Expression) -> Expression:
            return _at(problem, image, row, x) if scratch is None else scratch[row, x]

        stretches = [_stretch(problem, source)]
        product.write(problem, given, stretches, tile)
    function = product.schedule(builder.get(), problem, stretches, tile, core)
    if _is_copied(problem):
        function = _schedule_copy(function, problem, core)
    return function.with_attr("tirx.is_scheduled", True)


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
