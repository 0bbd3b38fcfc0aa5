"""Pointwise convolution: a matrix product over the channels, with bias, activation and shortcut in its epilogue.

    y[i, j] = activation(sum over k of x[i, k] * w[j, k] + bias[j]) + shortcut[i, j]

A linear layer is the same. So is a convolution whose stride is its kernel (patch embedding, merging): the windows do
not overlap, and each is a row of the product, read where it lies (implicit im2col). After a partial convolution the
first channels come from another tensor: the reduction goes over both, and nothing is sliced or concatenated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels import gemm, product
from edge.kernels.activation import with_shortcut_reference
from edge.kernels.core import Core
from edge.kernels.gemm import Tile
from edge.kernels.product import Expression, Stretch
from edge.kernels.template import FLOAT32_BYTES, Array, Problem, Template


@dataclass(frozen=True)
class PointwiseProblem(Problem):
    """A pointwise convolution, a linear layer, or a convolution whose stride is its kernel.

    Attributes:
        rows: positions of the result.
        inputs: channels of the input.
        outputs: channels of the result.
        bias: whether there is one.
        activation: a name that ``edge.kernels.activation`` knows.
        shortcut: whether a tensor like the result is added "before" or "after" the activation, or "none".
        partial: the first channels, which come from a tensor of their own; 0 where all come from one.
        window: side of the square window, which is also the stride; 1 for pointwise.
        height, width: of the input; only where the window is larger than 1.
        layout: of the input, "NHWC" or "NCHW".
    """

    rows: int
    inputs: int
    outputs: int
    bias: bool = False
    activation: str = "none"
    shortcut: str = "none"
    partial: int = 0
    window: int = 1
    height: int = 0
    width: int = 0
    layout: str = "NHWC"

    @property
    def reduction(self) -> int:
        """Steps of the sum for one element of the result."""
        return self.inputs * self.window**2

    @property
    def macs(self) -> int:
        """One for each element of the result and step of its sum."""
        return self.rows * self.outputs * self.reduction

    @property
    def bytes(self) -> int:
        """Input, weights, bias, shortcut and result."""
        tensors = self.rows * (self.reduction + self.outputs * (1 if self.shortcut == "none" else 2))
        return FLOAT32_BYTES * (tensors + self.outputs * (self.reduction + self.bias))

    @property
    def key(self) -> str:
        """Such as "pointwise 3136x40→80 bias gelu, 10 partial"."""
        words = [f"pointwise {self.rows}x{self.reduction}→{self.outputs}"]
        words += ["bias"] if self.bias else []
        words += [f"shortcut {self.shortcut} {self.activation}"] if self.shortcut != "none" else [self.activation]
        words += [f"partial {self.partial}"] if self.partial else []
        if self.window > 1:
            words.append(f"windows {self.window}x{self.window} of {self.layout} {self.height}x{self.width}")
        return " ".join(word for word in words if word != "none")


class Pointwise(Template[PointwiseProblem, Tile]):
    """See the module.

    The kernel's arguments: the partial convolution's output (rows, partial) where there is one; the input, (rows,
    inputs), or (height, width, inputs) or (inputs, height, width) where there is a window; the shortcut (rows,
    outputs); weights and bias as packed; the result (rows, outputs). The plain weights are (outputs, reduction), the
    reduction in the input's own order: window rows, window columns, channels for NHWC; channels first for NCHW; and
    the bias (outputs).
    """

    name = "pointwise"
    problems = PointwiseProblem
    choices = Tile

    def space(self, problem: PointwiseProblem, core: Core) -> tuple[Tile, ...]:
        """The product's."""
        return gemm.space(problem.rows, problem.outputs, problem.reduction, core)

    def default(self, problem: PointwiseProblem, core: Core) -> Tile:
        """The product's: the fewest instructions by estimate."""
        return self.space(problem, core)[0]

    def kernel(self, problem: PointwiseProblem, choice: Tile, core: Core) -> tirx.PrimFunc:
        """See the class for the arguments."""
        stretches: list[Stretch] = []
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name("pointwise")
            T.func_attr({"tirx.noalias": True})
            if problem.partial:
                convolved = product.argument("convolved", problem.rows, problem.partial)
                stretches.append(Stretch(0, problem.partial, lambda row, _, step: convolved[row, step]))
            stretches.append(_window(problem) if problem.window > 1 else _row(problem))
            product.write(problem, product.operands(problem), stretches, choice)
        scheduled = product.schedule(builder.get(), problem, stretches, choice, core)
        return scheduled.with_attr("tirx.is_scheduled", True)

    def pack(self, problem: PointwiseProblem, choice: Tile, *weights: Array) -> tuple[Array, ...]:
        """Panels of weights, and the bias as it is."""
        matrix, *bias = weights
        return gemm.constants(gemm.pack(matrix, choice), *bias)

    def reference(self, problem: PointwiseProblem, *arrays: Array) -> Array:
        """The formula of the module."""
        waiting = list(arrays)
        convolved = waiting.pop(0) if problem.partial else None
        rows = windows(problem, waiting.pop(0)) if problem.window > 1 else waiting.pop(0)
        if convolved is not None:
            rows = np.concatenate([convolved, rows[:, problem.partial :]], axis=1)
        shortcut = [waiting.pop(0)] if problem.shortcut != "none" else []
        total = rows @ waiting.pop(0).T
        if problem.bias:
            total = total + waiting.pop(0)
        return with_shortcut_reference(problem.activation, problem.shortcut, total, *shortcut)


def windows(problem: PointwiseProblem, image: Array) -> Array:
    """The windows of an image as rows (rows, reduction): what the kernel reads without making it."""
    side = problem.window
    down, across = problem.height // side, problem.width // side
    channels_last = problem.layout == "NHWC"
    image = image[: down * side, : across * side] if channels_last else image[:, : down * side, : across * side]
    if channels_last:
        cut = image.reshape(down, side, across, side, problem.inputs).transpose(0, 2, 1, 3, 4)
    else:
        cut = image.reshape(problem.inputs, down, side, across, side).transpose(1, 3, 0, 2, 4)
    return cut.reshape(problem.rows, problem.reduction)


def _row(problem: PointwiseProblem) -> Stretch:
    """All channels of a position, or those that the partial convolution left."""
    image = product.argument("input", problem.rows, problem.inputs)
    first = problem.partial
    return Stretch(first, problem.inputs - first, lambda row, _, step: image[row, first + step])


def _window(problem: PointwiseProblem) -> Stretch:
    """A window, in pieces that are contiguous in memory."""
    side, channels = problem.window, problem.inputs
    across = problem.width // side
    if problem.layout == "NHWC":
        image = product.argument("input", problem.height, problem.width, channels)

        def of_image(row: Expression, repeat: Expression, step: Expression) -> Expression:
            return image[row // across * side + repeat, row % across * side + step // channels, step % channels]

        return Stretch(0, side * channels, of_image, repeats=side, period=side * channels)

    planes = product.argument("input", channels, problem.height, problem.width)

    def of_planes(row: Expression, repeat: Expression, step: Expression) -> Expression:
        return planes[repeat // side, row // across * side + repeat % side, row % across * side + step]

    return Stretch(0, side, of_planes, repeats=channels * side, period=side)
