"""Pointwise convolution: a matrix product over the channels, with bias, activation and shortcut in its epilogue.

    y[i, j] = activation(sum over k of x[i, k] * w[j, k] + bias[j]) + shortcut[i, j]

A linear layer is the same, and so is a convolution whose stride is its kernel (``pointwise_rows``). The product is
computed as its formula has it, or by Strassen's algorithm (``strassen``): the choice says which.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels import gemm, pointwise_rows, product, strassen
from edge.kernels.activation import with_shortcut_reference
from edge.kernels.core import Core
from edge.kernels.pointwise_problem import PointwiseProblem, PointwiseTile
from edge.kernels.template import Array, Template


class Pointwise(Template[PointwiseProblem, PointwiseTile]):
    """See the module.

    The kernel's arguments: the partial convolution's output (rows, partial) where there is one; the input, (rows,
    inputs), or (height, width, inputs) or (inputs, height, width) where there is a window; the shortcut (rows,
    outputs); weights and bias as packed; the result (rows, outputs). The plain weights are (outputs, reduction), the
    reduction in the input's own order: window rows, window columns, channels for NHWC; channels first for NCHW; and
    the bias (outputs).
    """

    name = "pointwise"
    problems = PointwiseProblem
    choices = PointwiseTile

    def space(self, problem: PointwiseProblem, core: Core) -> tuple[PointwiseTile, ...]:
        """The product's tiles, and those of Strassen's products where the core gains by them."""
        tiles = gemm.space(problem.rows, problem.outputs, problem.reduction, core)
        formula = tuple(map(PointwiseTile.of, tiles))
        return formula + (strassen.space(problem, core) if strassen.suits(problem, core) else ())

    def default(self, problem: PointwiseProblem, core: Core) -> PointwiseTile:
        """The fewest instructions by estimate."""
        return min(self.space(problem, core), key=lambda tile: _instructions(problem, tile, core))

    def kernel(self, problem: PointwiseProblem, choice: PointwiseTile, core: Core) -> tirx.PrimFunc:
        """See the class for the arguments."""
        if choice.products == strassen.PRODUCTS:
            return strassen.kernel(problem, choice, core)
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name("pointwise")
            T.func_attr({"tirx.noalias": True})
            stretches = pointwise_rows.arguments(problem)
            product.write(problem, product.operands(problem), stretches, choice)
        scheduled = product.schedule(builder.get(), problem, stretches, choice, core)
        return scheduled.with_attr("tirx.is_scheduled", True)

    def pack(self, problem: PointwiseProblem, choice: PointwiseTile, *weights: Array) -> tuple[Array, ...]:
        """Panels of weights, and the bias as it is."""
        matrix, *bias = weights
        packed = (strassen if choice.products == strassen.PRODUCTS else gemm).pack(matrix, choice)
        return gemm.constants(packed, *bias)

    def reference(self, problem: PointwiseProblem, *arrays: Array) -> Array:
        """The formula of the module."""
        waiting = list(arrays)
        convolved = waiting.pop(0) if problem.partial else None
        image = waiting.pop(0)
        rows = pointwise_rows.windows(problem, image) if problem.window > 1 else image
        if convolved is not None:
            rows = np.concatenate([convolved, rows[:, problem.partial :]], axis=1)
        shortcut = [waiting.pop(0)] if problem.shortcut != "none" else []
        total = rows @ waiting.pop(0).T
        if problem.bias:
            total = total + waiting.pop(0)
        return with_shortcut_reference(problem.activation, problem.shortcut, total, *shortcut)


def _instructions(problem: PointwiseProblem, tile: PointwiseTile, core: Core) -> int:
    if tile.products == strassen.PRODUCTS:
        return strassen.instructions(problem, tile, core)
    return gemm.estimate(problem.rows, problem.outputs, problem.reduction, tile)
