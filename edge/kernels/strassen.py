"""A pointwise convolution by Strassen's algorithm, in Winograd's form: seven products of quarters instead of eight.

The rows, the reduction and the outputs are halved. Seven sums of the input's quarters are multiplied with seven sums of
the weights' quarters, which are made when the weights are packed; the result's quarters are sums of the products:

    over strips of rows
        over the seven
            factor[i, k] = sum of some of the four quarters of the strip's input
            products[p, i, j] = sum over k of factor[i, k] * weights[p, j, k]
        result's four quarters = epilogue(sums of the products)

V. Strassen, *Gaussian Elimination is not Optimal*, 1969; N. Higham, *Accuracy and Stability of Numerical Algorithms*,
section 23.1, has Winograd's form of it.

Threads share the strips; where one strip is the whole input, they share its rows and the tiles of its products. Where
the rows of a strip are odd, the one in the middle belongs to both halves. The packed weights are 7/4 as many as the
plain ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from itertools import product as pairs
from math import ceil
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels import gemm, pointwise_rows, product, scratch
from edge.kernels.core import Core
from edge.kernels.pointwise_problem import PointwiseProblem, PointwiseTile
from edge.kernels.product import Expression, Operands, Stretch
from edge.kernels.scratch import PlainProduct
from edge.kernels.template import FLOAT32_BYTES, Array

PRODUCTS = 7
LEAST = 48
"""Below, in any direction, the sums cost about as much as the eighth product."""
TO_FACTORS, TO_RESULTS = 14 + 7 + 7, 7 + 7 + 4
"""Instructions for the same place in each quarter: to load, to add, to store."""


def suits(problem: PointwiseProblem, core: Core) -> bool:
    """Whether the algorithm is for this product: it is large, and has halves that are read where they lie."""
    sizes = (problem.rows, problem.outputs, problem.reduction)
    even = problem.outputs % 2 == problem.reduction % 2 == 0
    return core.strassen and even and min(sizes) >= LEAST and problem.layout == "NHWC"


def space(problem: PointwiseProblem, core: Core) -> tuple[PointwiseTile, ...]:
    """The tiles of a strip's products."""
    quarter = _quarter(problem, _strip(problem, core))
    tiles = gemm.space(*quarter.size, core)
    return tuple(PointwiseTile.of(tile, PRODUCTS) for tile in tiles)


def instructions(problem: PointwiseProblem, tile: PointwiseTile, core: Core) -> int:
    """Of the products by their estimate, and of the sums."""
    strip = _strip(problem, core)
    quarter = _quarter(problem, strip)
    before = TO_FACTORS * ceil(quarter.reduction / core.lanes)
    after = TO_RESULTS * ceil(quarter.outputs / core.lanes)
    products = PRODUCTS * gemm.estimate(*quarter.size, tile)
    return problem.rows // strip * (products + quarter.rows * (before + after))


def pack(matrix: Array, tile: PointwiseTile) -> Array:
    """Panels (7, those of ``gemm.pack``) of weights (outputs, reduction)."""
    (b11, b21), (b12, b22) = (np.hsplit(half, 2) for half in np.vsplit(matrix, 2))
    t1 = b12 - b11
    t2 = b22 - t1
    return np.stack([gemm.pack(part, tile) for part in (b11, b21, b22, t2 - b21, t1, t2, b22 - b12)])


def _factors(a11: Any, a12: Any, a21: Any, a22: Any) -> tuple[Any, ...]:
    """Of the input's quarters, what each product multiplies."""
    s1 = a21 + a22
    s2 = s1 - a11
    return a11, a12, a12 - s2, a22, s1, s2, a11 - a21


def _results(p1: Any, p2: Any, p3: Any, p4: Any, p5: Any, p6: Any, p7: Any) -> tuple[Any, ...]:
    """Of the products, the result's quarters: upper left, upper right, lower left, lower right."""
    u2 = p1 + p6
    u3 = u2 + p7
    return p1 + p2, u2 + p5 + p3, u3 - p4, u3 + p5


def kernel(problem: PointwiseProblem, tile: PointwiseTile, core: Core) -> tirx.PrimFunc:
    """See ``pointwise.Pointwise`` for the arguments."""
    strip = _strip(problem, core)
    quarter, strips = _quarter(problem, strip), problem.rows // strip
    lower = strip - quarter.rows
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("strassen")
        T.func_attr({"tirx.noalias": True})
        stretches = pointwise_rows.arguments(problem)
        given = product.operands(problem, (PRODUCTS, quarter.outputs * quarter.reduction))
        across, within = (T.parallel, T.serial) if strips > 1 else (T.serial, T.parallel)
        with across(strips) as index, T.sblock("strip"):
            first = T.axis.spatial(strips, index) * strip
            factor = T.sblock_alloc_buffer((quarter.rows, quarter.reduction), "float32")
            products = T.sblock_alloc_buffer((PRODUCTS, quarter.rows, quarter.outputs), "float32")
            with T.serial(PRODUCTS) as number, T.sblock("product"):
                which = T.axis.spatial(PRODUCTS, number)
                for one in range(PRODUCTS):
                    with T.If(which == one), T.Then(), within(quarter.rows) as row:
                        halves = (first + row, first + lower + row)
                        for column, quarters in _quarters(stretches, halves, quarter.reduction, core):
                            T.buffer_store(factor, _factors(*quarters)[one], [row, column])
                stretch = Stretch(0, quarter.reduction, lambda row, _, step: factor[row, step])
                product.write(quarter, Operands(None, given.weights, None, products), [stretch], tile, (which,))

            def write(row: Expression | int, *rows: Expression) -> None:
                # To the upper half's row, and to the lower half's, if it is given, too.
                with scratch.channels(quarter.outputs, core) as channel:
                    results = _results(*(products[number, row, channel] for number in range(PRODUCTS)))
                    places = pairs(rows, (channel, channel + quarter.outputs))
                    for place, total in zip(places, results, strict=False):
                        scratch.store(problem, given, place, total)

            shared = quarter.rows - lower
            if shared:
                write(0, first)
            with within(lower) as row:
                write(row + shared, first + row + shared, first + quarter.rows + row)
    function = product.schedule(builder.get(), quarter, [stretch], tile, core)
    return scratch.parallel_outside_only(function).with_attr("tirx.is_scheduled", True)


def _strip(problem: PointwiseProblem, core: Core) -> int:
    """The most rows whose scratch matrices take half of the second cache, if the weights take no more than that.

    All rows where the weights take more, so that each is read once; and where no part of the rows is even.
    """

    def taken(rows: int) -> int:
        quarter = _quarter(problem, rows)
        return FLOAT32_BYTES * quarter.rows * (quarter.reduction + PRODUCTS * quarter.outputs)

    quarter = _quarter(problem, problem.rows)
    if 2 * FLOAT32_BYTES * PRODUCTS * quarter.outputs * quarter.reduction > core.l2_bytes:
        return problem.rows
    parts = [rows for rows in range(2, problem.rows + 1, 2) if problem.rows % rows == 0]
    return max((rows for rows in parts if 2 * taken(rows) <= core.l2_bytes), default=problem.rows)


def _quarter(problem: PointwiseProblem, rows: int) -> PlainProduct:
    """Each product of a strip of so many rows."""
    return PlainProduct(ceil(rows / 2), problem.outputs // 2, problem.reduction // 2)


def _quarters(
    stretches: Sequence[Stretch], rows: tuple[Expression, Expression], half: int, core: Core
) -> Iterator[tuple[Expression, list[Expression]]]:
    """Go through half of the reduction: a column, and the input there and in the other half, for each of two rows."""
    begins = (stretch.start + repeat * stretch.length for stretch in stretches for repeat in range(stretch.repeats))
    cuts = {begin % half for begin in begins}
    for start, end in pairwise(sorted({0, half} | cuts)):
        with scratch.channels(end - start, core) as step:
            quarters = [_at(stretches, row, first, step) for row in rows for first in (start, half + start)]
            yield start + step, quarters


def _at(stretches: Sequence[Stretch], row: Expression, first: int, step: Expression) -> Expression:
    """The input at so many steps behind ``first``, with nothing but steps of one repetition between."""
    stretch = max((stretch for stretch in stretches if stretch.start <= first), key=lambda stretch: stretch.start)
    repeat, begin = divmod(first - stretch.start, stretch.length)
    return stretch.read(row, tirx.const(repeat, "int32"), begin + step)
