"""What a pointwise convolution computes (sizes, windows, epilogue), and what is chosen of how it does so.

y[i, j] = activation(sum over k of x[i, k] * w[j, k] + bias[j]) + shortcut[i, j]
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.kernels.gemm import Tile
from edge.kernels.template import FLOAT32_BYTES, Problem


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


@dataclass(frozen=True)
class PointwiseTile(Tile):
    """How a pointwise convolution is computed: the tile of its matrix product, and by which algorithm.

    Attributes:
        products: of quarters of the matrices: 8 as the formula has them, 7 by Strassen's algorithm.
    """

    products: int = 8

    @classmethod
    def of(cls, tile: Tile, products: int = 8) -> PointwiseTile:
        """A product's tile, for an algorithm."""
        return cls(**tile.to_json(), products=products)
