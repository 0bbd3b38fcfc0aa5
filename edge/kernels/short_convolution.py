"""A dense convolution by Winograd's short convolutions along the image's lines: fewer multiplications than its formula.

Each product of the transform (``winograd``) is a matrix product over the kernel's rows and the channels, between an
image that is transformed once and weights that are transformed when they are packed:

    over strips of lines
        transformed[p, y, t, c] = B of the input's columns from m t on         m + 2 columns, for m outputs
        products[p, (y, t), o] = sum over (dy, c) of transformed[p, y + dy, t, c] * weights[p, o, (dy, c)]
        result[y, m t + i, o] = epilogue(A of the products)

A strip is so low that its scratch images stay in the second cache. Threads share the strips; where one strip is the
whole image, they share its lines and its products. What lies left and right of the image is zeros that nobody stores:
the first and the last windows of a line are code of their own.

It is for kernels that are three columns wide and go over each column, in images whose channels come last. The packed
weights are (m + 2) / 3 as many as the plain ones: twice as many for four outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels import gemm, product, scratch
from edge.kernels.convolution_problem import ConvolutionProblem, ConvolutionTile
from edge.kernels.core import Core
from edge.kernels.product import Expression, Operands, Stretch
from edge.kernels.scratch import PlainProduct
from edge.kernels.template import FLOAT32_BYTES, Array
from edge.kernels.winograd import TAPS, TRANSFORMS

THREADS = 4
"""Strips that there should be, if there are several."""
STEPS = 3
"""Instructions of a transform for each value: to load and store it, and to add."""


@dataclass(frozen=True)
class _Strip:
    """A strip of lines.

    Attributes:
        lines: of the result.
        windows: in a line.
        product: each product of the transform; its rows are the windows of all lines.
    """

    lines: int
    windows: int
    product: PlainProduct


def suits(problem: ConvolutionProblem) -> bool:
    """Whether the transform is for this convolution."""
    return problem.kernel[1] == TAPS and problem.strides == (1, 1) and problem.layout == "NHWC"


def space(problem: ConvolutionProblem, outputs: int, core: Core) -> tuple[ConvolutionTile, ...]:
    """The tiles of a strip's product; none where a line is shorter than the outputs that are made at once."""
    if problem.across.length < outputs:
        return ()
    strip = _strip(problem, outputs, core)
    tiles = gemm.space(*strip.product.size, core)
    return tuple(ConvolutionTile.of(tile, outputs) for tile in tiles)


def instructions(problem: ConvolutionProblem, tile: ConvolutionTile, core: Core) -> int:
    """Of the products by their estimate, and of the transforms."""
    strip, count = _strip(problem, tile.outputs, core), tile.outputs + TAPS - 1
    inputs = (strip.lines + problem.kernel[0] - 1) * ceil(problem.inputs / core.lanes)
    outputs = strip.lines * ceil(problem.outputs / core.lanes)
    transforms = STEPS * strip.windows * (inputs + outputs)
    each = gemm.estimate(*strip.product.size, tile) + transforms
    return problem.down.length // strip.lines * count * each


def pack(problem: ConvolutionProblem, tile: ConvolutionTile, kernels: Array) -> Array:
    """Transformed weights (m + 2, panels of ``gemm.pack``), of (outputs, inputs, rows, columns)."""
    transformed = TRANSFORMS[tile.outputs].weights(kernels.transpose(3, 0, 2, 1))
    matrices = transformed.reshape(len(transformed), problem.outputs, -1)
    return np.stack([gemm.pack(matrix, tile) for matrix in matrices])


def kernel(problem: ConvolutionProblem, tile: ConvolutionTile, core: Core) -> tirx.PrimFunc:
    """See ``convolution.Convolution`` for the arguments."""
    strip, count, kernel_lines = _strip(problem, tile.outputs, core), tile.outputs + TAPS - 1, problem.kernel[0]
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("short_convolution")
        T.func_attr({"tirx.noalias": True})
        image = product.argument("input", problem.height, problem.width, problem.channels)
        given = product.operands(problem, (count, strip.product.outputs * strip.product.reduction))
        strips = problem.down.length // strip.lines
        across, within = (T.parallel, T.serial) if strips > 1 else (T.serial, T.parallel)
        with across(strips) as index, T.sblock("strip"):
            first = T.axis.spatial(strips, index) * strip.lines
            lines = strip.lines + kernel_lines - 1
            transformed = T.sblock_alloc_buffer((count, lines * strip.windows, problem.inputs), "float32")
            products = T.sblock_alloc_buffer((count, strip.product.rows, strip.product.outputs), "float32")
            with within(lines) as line:
                _transform_line(problem, tile.outputs, first, line, image, transformed, core)
            with within(count) as number, T.sblock("product"):
                which = T.axis.spatial(count, number)

                def read(row: Expression, repeat: Expression, step: Expression) -> Expression:
                    return transformed[which, row + repeat * strip.windows, step]

                stretch = Stretch(0, problem.inputs, read, repeats=kernel_lines, period=problem.inputs)
                product.write(strip.product, Operands(None, given.weights, None, products), [stretch], tile, (which,))

            with within(strip.lines) as line:
                row = (first + line) * problem.across.length

                def store(column: Expression, channel: Expression, value: Expression) -> None:
                    scratch.store(problem, given, (row + column, channel), value)

                _write_line(problem, tile.outputs, line, products, store, core)
    function = product.schedule(builder.get(), strip.product, [stretch], tile, core)
    return scratch.parallel_outside_only(function).with_attr("tirx.is_scheduled", True)


def _strip(problem: ConvolutionProblem, outputs: int, core: Core) -> _Strip:
    """The most lines whose scratch images take half of the second cache: all of them, or at most a quarter."""
    windows, lines = _windows(problem, outputs), problem.down.length

    def taken(height: int) -> int:
        values = (height + problem.kernel[0] - 1) * problem.inputs + height * problem.outputs
        return FLOAT32_BYTES * (outputs + TAPS - 1) * windows * values

    heights = [height for height in range(1, lines + 1) if lines % height == 0 and not 1 < lines // height < THREADS]
    most = max((height for height in heights if 2 * taken(height) <= core.l2_bytes), default=1)
    return _Strip(most, windows, PlainProduct(most * windows, problem.outputs, problem.kernel[0] * problem.inputs))


def _windows(problem: ConvolutionProblem, outputs: int) -> int:
    """Windows of a line; the last may have outputs behind the line's end."""
    return ceil(problem.across.length / outputs)


def _transform_line(
    problem: ConvolutionProblem,
    outputs: int,
    first: Expression,
    line: Expression,
    image: tirx.Buffer,
    transformed: tirx.Buffer,
    core: Core,
) -> None:
    """Write a transformed line of the strip that begins with line ``first`` of the result: zeros outside the image."""
    left, windows = problem.across.before, _windows(problem, outputs)
    inside = problem.across.interior(outputs)
    y = first + line - problem.down.before

    def window(index: Expression | int) -> None:
        columns = [index * outputs - left + step for step in range(outputs + TAPS - 1)]
        with scratch.channels(problem.inputs, core) as channel:
            values = [
                T.float32(0)
                if isinstance(column, int) and not 0 <= column < problem.width
                else image[y, column, channel]
                for column in columns
            ]
            for number, value in enumerate(TRANSFORMS[outputs].inputs(values)):
                T.buffer_store(transformed, value, [number, line * windows + index, channel])

    with T.If(tirx.all(y >= 0, y < problem.height)):
        with T.Then():
            for index in range(windows):
                if index not in inside:
                    window(index)
            if inside:
                with T.serial(len(inside)) as index:
                    window(inside.start + index)
        with (
            T.Else(),
            T.grid(outputs + TAPS - 1, windows) as (number, index),
            scratch.channels(problem.inputs, core) as channel,
        ):
            T.buffer_store(transformed, T.float32(0), [number, line * windows + index, channel])


def _write_line(
    problem: ConvolutionProblem,
    outputs: int,
    line: Expression,
    products: tirx.Buffer,
    store: Callable[[Expression, Expression, Expression], None],
    core: Core,
) -> None:
    """Transform a line's products and store its results, by column, channel and value."""
    width = problem.across.length
    windows, whole = _windows(problem, outputs), width // outputs

    def window(index: Expression | int, kept: int) -> None:
        with scratch.channels(problem.outputs, core) as channel:
            values = [products[number, line * windows + index, channel] for number in range(outputs + TAPS - 1)]
            for step, value in enumerate(TRANSFORMS[outputs].outputs(values)[:kept]):
                store(index * outputs + step, channel, value)

    with T.serial(whole) as index:
        window(index, outputs)
    if width % outputs:
        window(whole, width % outputs)
