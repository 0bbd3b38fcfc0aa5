"""A pointwise convolution by Strassen's algorithm, in Winograd's form: seven products of quarters instead of eight.

The rows, the reduction and the outputs are halved. Seven sums of the input's quarters are multiplied with seven sums of
the weights' quarters, which are made when the weights are packed; the result's quarters are sums of the products:

    over strips of rows
        sums[p, i, k] of the four quarters of the strip's input
        products[p, i, j] = sum over k of sums[p, i, k] * weights[p, j, k]
        result's four quarters = epilogue(sums of the products)

V. Strassen, *Gaussian Elimination is not Optimal*, 1969; the form with the fewest additions (15) is S. Winograd's. The
sums are rounded otherwise than the formula's, a few times as much. The packed weights are 7/4 as many as the plain ones.

Where the rows of a strip are odd, the one in the middle belongs to both halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels import gemm, pointwise_rows, product
from edge.kernels.activation import with_shortcut
from edge.kernels.core import Core
from edge.kernels.pointwise_problem import PointwiseProblem, PointwiseTile
from edge.kernels.product import Expression, Operands, Stretch
from edge.kernels.scratch import PlainProduct, channels, parallel_outside_only
from edge.kernels.template import Array

PRODUCTS = 7
STRIPS = (1, 2, 4, 7, 8, 14, 16, 28, 56)
LEAST = 64
"""Below, in any direction, sums cost more than an eighth of the product."""


def suits(problem: PointwiseProblem, core: Core) -> bool:
    """Whether the algorithm is for this product: it is large, and has halves that are read where they lie."""
    sizes = (problem.rows, problem.outputs, problem.reduction)
    even = problem.outputs % 2 == problem.reduction % 2 == 0
    return core.strassen and even and min(sizes) >= LEAST and problem.layout == "NHWC"


def space(problem: PointwiseProblem, core: Core) -> tuple[PointwiseTile, ...]:
    """The tiles of a strip's products."""
    choices = []
    for strips in STRIPS:
        if problem.rows % strips == 0 and problem.rows // strips >= 28:
            part = _quarter(problem, strips)
            choices += [
                PointwiseTile(**tile.to_json(), products=PRODUCTS, strips=strips)
                for tile in gemm.space(part.rows, part.outputs, part.reduction, core)
            ]
    return tuple(choices)


def instructions(problem: PointwiseProblem, tile: PointwiseTile, core: Core) -> int:
    part = _quarter(problem, tile.strips)
    sums = part.rows * (15 * ceil(part.reduction / core.lanes) + 18 * ceil(part.outputs / core.lanes))
    return tile.strips * (PRODUCTS * gemm.estimate(part.rows, part.outputs, part.reduction, tile) + sums)


def pack(matrix: Array, tile: PointwiseTile) -> Array:
    """Panels of ``gemm.pack``, one product after the other, of weights (outputs, reduction)."""
    (b11, b21), (b12, b22) = ([*np.hsplit(half, 2)] for half in np.vsplit(matrix, 2))
    t1 = b12 - b11
    t2 = b22 - t1
    return np.stack([gemm.pack(part, tile) for part in (b11, b21, b22, t2 - b21, t1, t2, b22 - b12)])


def _inputs(a11: Any, a12: Any, a21: Any, a22: Any) -> list[Any]:
    s1 = a21 + a22
    s2 = s1 - a11
    return [a11, a12, a12 - s2, a22, s1, s2, a11 - a21]


def _outputs(p: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    u2 = p[0] + p[5]
    u3 = u2 + p[6]
    return p[0] + p[1], u2 + p[4] + p[2], u3 - p[3], u3 + p[4]


def kernel(problem: PointwiseProblem, tile: PointwiseTile, core: Core) -> tirx.PrimFunc:
    """See ``pointwise.Pointwise`` for the arguments."""
    part, rows = _quarter(problem, tile.strips), problem.rows // tile.strips
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("strassen")
        T.func_attr({"tirx.noalias": True})
        stretches = pointwise_rows.arguments(problem)
        given = product.operands(problem, (PRODUCTS, part.outputs * part.reduction))
        across, within = (T.parallel, T.serial) if tile.strips > 1 else (T.serial, T.parallel)
        with across(tile.strips) as index, T.sblock("strip"):
            first = T.axis.spatial(tile.strips, index) * rows
            sums = T.sblock_alloc_buffer((PRODUCTS, part.rows, part.reduction), "float32")
            products = T.sblock_alloc_buffer((PRODUCTS, part.rows, part.outputs), "float32")
            with within(part.rows) as row:
                _write_sums(stretches, part, row, (first + row, first + rows - part.rows + row), sums, core)
            with within(PRODUCTS) as number, T.sblock("product"):
                which = T.axis.spatial(PRODUCTS, number)
                stretch = Stretch(0, part.reduction, lambda row, _, step: sums[which, row, step])
                product.write(part, Operands(None, given.weights, None, products), [stretch], tile, (which,))
            shared = 2 * part.rows - rows
            if shared:
                _write_results(problem, part, 0, (first,), products, given, core)
            with within(part.rows - shared) as row:
                r = row + shared
                _write_results(problem, part, r, (first + r, first + rows - part.rows + r), products, given, core)
    function = product.schedule(builder.get(), part, [stretch], tile, replace(core, software_prefetch=False))
    return parallel_outside_only(function).with_attr("tirx.is_scheduled", True)


def _quarter(problem: PointwiseProblem, strips: int) -> PlainProduct:
    return PlainProduct(ceil(problem.rows // strips / 2), problem.outputs // 2, problem.reduction // 2)


def _write_sums(
    stretches: Sequence[Stretch],
    part: PlainProduct,
    row: Expression,
    rows: tuple[Expression, Expression],
    sums: tirx.Buffer,
    core: Core,
) -> None:
    half = part.reduction
    cuts = {(stretch.start + n * stretch.length) % half for stretch in stretches for n in range(stretch.repeats)}
    for start, end in pairwise(sorted(cuts | {0, half})):
        with channels(end - start, core) as step:
            quarters = [_at(stretches, row, first, step) for row in rows for first in (start, half + start)]
            for number, value in enumerate(_inputs(*quarters)):
                T.buffer_store(sums, value, [number, row, start + step])


def _at(stretches: Sequence[Stretch], row: Expression, first: int, step: Expression) -> Expression:
    """The input of a row at ``step`` behind a row of the weights."""
    stretch = max((stretch for stretch in stretches if stretch.start <= first), key=lambda stretch: stretch.start)
    repeat, begin = divmod(first - stretch.start, stretch.length)
    return stretch.read(row, tirx.const(repeat, "int32"), begin + step)


def _write_results(
    problem: PointwiseProblem,
    part: PlainProduct,
    row: Expression | int,
    rows: tuple[Expression, ...],
    products: tirx.Buffer,
    given: Operands,
    core: Core,
) -> None:
    with channels(part.outputs, core) as channel:
        quarters = _outputs([products[number, row, channel] for number in range(PRODUCTS)])
        for index, total in enumerate(quarters[: 2 * len(rows)]):
            place = (rows[index // 2], channel + index % 2 * part.outputs)
            value = total if given.bias is None else total + given.bias[place[1]]
            other = None if given.shortcut is None else given.shortcut[place]
            T.buffer_store(given.result, with_shortcut(problem.activation, problem.shortcut, value, other), list(place))
