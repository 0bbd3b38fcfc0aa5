"""Partial convolution: a k x k convolution, stride 1, of the first channels of an image that has more.

    y[i, j] = sum over (dy, dx, c < convolved) of x[i + (dy, dx), c] * w[j, c, dy, dx]        FasterNet, equation (4)

The channels that it leaves alone are neither read nor written: the pointwise convolution after it takes the first
channels from this kernel's result and the others from the image (see ``pointwise``). How it is computed is the
convolution template's; this is its problem as FasterNet states it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.kernels.convolution import Convolution
from edge.kernels.convolution_problem import ConvolutionProblem, ConvolutionTile
from edge.kernels.core import Core
from edge.kernels.template import FLOAT32_BYTES, Array, Problem, Template

if TYPE_CHECKING:
    from tvm import tirx


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

    @property
    def convolution(self) -> ConvolutionProblem:
        """The same as a convolution."""
        kernel, border = (self.kernel, self.kernel), (self.kernel // 2,) * 4
        first = (self.channels, self.convolved, self.convolved)
        return ConvolutionProblem(self.height, self.width, *first, kernel, padding=border)


class Partial(Template[PartialProblem, ConvolutionTile]):
    """See the module.

    The kernel's arguments: the image (height, width, channels), the packed weights, the result (rows, convolved). The
    plain weights are (convolved, convolved, kernel, kernel): outputs, inputs, rows, columns.
    """

    name = "partial"
    problems = PartialProblem
    choices = ConvolutionTile
    _convolution = Convolution()

    def space(self, problem: PartialProblem, core: Core) -> tuple[ConvolutionTile, ...]:
        """The convolution's."""
        return self._convolution.space(problem.convolution, core)

    def default(self, problem: PartialProblem, core: Core) -> ConvolutionTile:
        """The convolution's."""
        return self._convolution.default(problem.convolution, core)

    def kernel(self, problem: PartialProblem, choice: ConvolutionTile, core: Core) -> tirx.PrimFunc:
        """See the class for the arguments."""
        return self._convolution.kernel(problem.convolution, choice, core)

    def pack(self, problem: PartialProblem, choice: ConvolutionTile, *weights: Array) -> tuple[Array, ...]:
        """The convolution's."""
        return self._convolution.pack(problem.convolution, choice, *weights)

    def reference(self, problem: PartialProblem, *arrays: Array) -> Array:
        """The formula of the module."""
        return self._convolution.reference(problem.convolution, *arrays)
