"""What a dense convolution computes (shapes, strides, padding, epilogue), and what is chosen of how it does so.

y[i, j, o] = activation(sum over (dy, dx, c) of x[s i + dy - top, s j + dx - left, c] w[o, c, dy, dx] + bias[o])
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.kernels.axis import Axis
from edge.kernels.gemm import Tile
from edge.kernels.template import FLOAT32_BYTES, Problem


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


@dataclass(frozen=True)
class ConvolutionTile(Tile):
    """How a convolution is computed: the tile of its matrix product, and by which algorithm it becomes one.

    Attributes:
        outputs: of a line, which a short convolution makes at once; with one, the formula is computed as it stands.
    """

    outputs: int = 1

    @classmethod
    def of(cls, tile: Tile, outputs: int) -> ConvolutionTile:
        """A product's tile, for an algorithm."""
        return cls(**tile.to_json(), outputs=outputs)
