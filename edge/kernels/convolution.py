"""Convolution with a dense kernel: any size, strides and padding, with bias, activation and shortcut in its epilogue.

It is a matrix product of the image's windows (``im2col``), or of windows that are transformed to need fewer
multiplications (``short_convolution``): the choice says which.
"""

from __future__ import annotations

from itertools import chain
from types import ModuleType

import numpy as np
from tvm import tirx

from edge.kernels import gemm, im2col, short_convolution
from edge.kernels.activation import with_shortcut_reference
from edge.kernels.convolution_problem import ConvolutionProblem, ConvolutionTile
from edge.kernels.core import Core
from edge.kernels.template import Array, Template
from edge.kernels.winograd import TRANSFORMS


class Convolution(Template[ConvolutionProblem, ConvolutionTile]):
    """See the module.

    The kernel's arguments: the image (height, width, channels), or (channels, height, width) where its channels come
    first; the shortcut (rows, outputs); weights and bias as packed; the result (rows, outputs). The plain weights are
    (outputs, inputs, kernel rows, kernel columns), and the bias (outputs).
    """

    name = "convolution"
    problems = ConvolutionProblem
    choices = ConvolutionTile

    def space(self, problem: ConvolutionProblem, core: Core) -> tuple[ConvolutionTile, ...]:
        """The tiles of the matrix product, for each algorithm that suits the problem."""
        ways = TRANSFORMS if short_convolution.suits(problem) else (1,)
        return tuple(chain.from_iterable(_way(outputs).space(problem, outputs, core) for outputs in ways))

    def default(self, problem: ConvolutionProblem, core: Core) -> ConvolutionTile:
        """The fewest instructions by estimate."""
        return min(self.space(problem, core), key=lambda tile: _way(tile.outputs).instructions(problem, tile, core))

    def kernel(self, problem: ConvolutionProblem, choice: ConvolutionTile, core: Core) -> tirx.PrimFunc:
        """See the class for the arguments."""
        return _way(choice.outputs).kernel(problem, choice, core)

    def pack(self, problem: ConvolutionProblem, choice: ConvolutionTile, *weights: Array) -> tuple[Array, ...]:
        """Panels, transformed where the choice says so, and the bias as it is."""
        kernels, *bias = weights
        return gemm.constants(_way(choice.outputs).pack(problem, choice, kernels), *bias)

    def reference(self, problem: ConvolutionProblem, *arrays: Array) -> Array:
        """The formula of ``convolution_problem``, one kernel position at a time."""
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


def _way(outputs: int) -> ModuleType:
    """The algorithm for so many outputs at once."""
    return im2col if outputs == 1 else short_convolution
