"""Partial convolution: a k x k convolution, stride 1, of the first channels of an image that has more.

    y[i, j] = sum over (dy, dx, c < convolved) of x[i + (dy, dx), c] * w[j, c, dy, dx]        FasterNet, equation (4)

The channels that it leaves alone are neither read nor written: the pointwise convolution after it takes the first
channels from this kernel's result and the others from the image (see ``pointwise``). The convolved channels are copied
into a scratch image with a border of zeros, in which k neighbouring positions lie one after the other: the convolution
is a matrix product with k stretches, and no multiply-add is spent on a position or channel that does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels import gemm
from edge.kernels.core import Core
from edge.kernels.gemm import Expression, Stretch, Tile
from edge.kernels.template import FLOAT32_BYTES, Array, Problem, Template


@dataclass(frozen=True)
class PartialProblem(Problem):
    """A convolution of the first channels.

    Attributes:
        height, width: of the image, and of the result: it is padded with zeros.
        channels: of the image.
        convolved: the first of them, which the convolution reads; the result has as many.
        kernel: side of the square kernel, odd.
    """

    height: int
    width: int
    channels: int
    convolved: int
    kernel: int = 3

    @property
    def rows(self) -> int:
        """Positions."""
        return self.height * self.width

    @property
    def reduction(self) -> int:
        """Steps of the sum for one element of the result."""
        return self.kernel**2 * self.convolved

    @property
    def macs(self) -> int:
        """As if there were no border."""
        return self.rows * self.convolved * self.reduction

    @property
    def bytes(self) -> int:
        """The convolved channels once in and once out, and the weights."""
        return FLOAT32_BYTES * self.convolved * (2 * self.rows + self.reduction)

    @property
    def key(self) -> str:
        """Such as "partial 3x3 56x56x40 first 10"."""
        side = self.kernel
        return f"partial {side}x{side} {self.height}x{self.width}x{self.channels} first {self.convolved}"


class Partial(Template[PartialProblem, Tile]):
    """See the module.

    The kernel's arguments: the image (height, width, channels), the packed weights, the result (rows, convolved). The
    plain weights are (convolved, convolved, kernel, kernel): outputs, inputs, rows, columns.
    """

    name = "partial"
    problems = PartialProblem
    choices = Tile

    def space(self, problem: PartialProblem, core: Core) -> tuple[Tile, ...]:
        """The product's."""
        return gemm.space(problem.rows, problem.convolved, problem.reduction, core)

    def default(self, problem: PartialProblem, core: Core) -> Tile:
        """The product's: the fewest instructions by estimate."""
        return self.space(problem, core)[0]

    def kernel(self, problem: PartialProblem, choice: Tile, core: Core) -> tirx.PrimFunc:
        """See the class for the arguments."""
        border, convolved, width = problem.kernel // 2, problem.convolved, problem.width
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name("partial")
            T.func_attr({"tirx.noalias": True})
            image = T.arg("input", T.buffer((problem.height, width, problem.channels), "float32"))
            weights = T.arg("weights", T.buffer((convolved * problem.reduction,), "float32"))
            result = T.arg("result", T.buffer((problem.rows, convolved), "float32"))
            scratch_shape = (problem.height + 2 * border, (width + 2 * border) * convolved)
            scratch = T.sblock_alloc_buffer(scratch_shape, "float32")
            _fill(scratch, image, border, convolved)

            def read(row: Expression, repeat: Expression, step: Expression) -> Expression:
                return scratch[row // width + repeat, row % width * convolved + step]

            length = problem.kernel * convolved
            stretches = [Stretch(0, length, read, repeats=problem.kernel, period=length)]
            zero = tirx.const(0, "float32")
            gemm.product(result, weights, stretches, lambda _: zero, lambda total, *_: total, choice)
        function = gemm.schedule(builder.get(), problem.rows, convolved, stretches, choice)
        return _schedule_scratch(function, convolved, core).with_attr("tirx.is_scheduled", True)

    def pack(self, problem: PartialProblem, choice: Tile, *weights: Array) -> tuple[Array, ...]:
        """Panels, in the order in which the scratch image is read: rows, columns, channels."""
        (kernels,) = weights
        return (gemm.pack(kernels.transpose(0, 2, 3, 1).reshape(problem.convolved, problem.reduction), choice),)

    def reference(self, problem: PartialProblem, *arrays: Array) -> Array:
        """The formula of the module."""
        image, kernels = arrays
        border = problem.kernel // 2
        padded = np.pad(image[..., : problem.convolved], ((border, border), (border, border), (0, 0)))
        total = np.zeros((problem.height, problem.width, problem.convolved), image.dtype)
        for dy in range(problem.kernel):
            for dx in range(problem.kernel):
                total += padded[dy : dy + problem.height, dx : dx + problem.width] @ kernels[:, :, dy, dx].T
        return total.reshape(problem.rows, problem.convolved)


def _fill(scratch: tirx.Buffer, image: tirx.Buffer, border: int, convolved: int) -> None:
    """The image's first channels within a border of zeros, each part a block of its own so that none has conditions."""
    height, width, _ = map(int, image.shape)
    right, below = (border + width) * convolved, border + height
    zero = tirx.const(0, "float32")
    for name, rows, columns, source in (
        ("above", (0, border), (0, right + border * convolved), None),
        ("below", (below, border), (0, right + border * convolved), None),
        ("left", (border, height), (0, border * convolved), None),
        ("right", (border, height), (right, border * convolved), None),
        ("inside", (border, height), (border * convolved, width * convolved), image),
    ):
        with T.sblock(name), T.grid(rows[1], columns[1]) as axes, T.sblock(f"fill_{name}"):
            y, x = T.axis.remap("SS", list(axes))
            value = zero if source is None else source[y, x // convolved, x % convolved]
            T.buffer_store(scratch, value, [rows[0] + y, columns[0] + x])


def _schedule_scratch(function: tirx.PrimFunc, convolved: int, core: Core) -> tirx.PrimFunc:
    scheduler = Schedule(tvm.IRModule({"main": function}))
    for name in ("above", "below", "left", "right", "inside"):
        row, column = scheduler.get_loops(scheduler.get_sblock(f"fill_{name}"))
        _, piece = scheduler.split(column, [None, _piece(convolved, core)])
        scheduler.parallel(row)
        scheduler.vectorize(piece)
    return scheduler.mod["main"]


def _piece(convolved: int, core: Core) -> int:
    """How many channels are copied at a time: whole registers, where the channels divide into them."""
    divisors = [n for n in range(1, min(convolved, 8 * core.lanes) + 1) if convolved % n == 0]
    return max(divisors, key=lambda n: (n % core.lanes == 0, n))
