"""Where the outputs of a convolution lie over its inputs, along one axis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """Rows or columns: where outputs lie over inputs.

    Attributes:
        inputs: how many there are.
        kernel, stride: along this axis.
        before, after: zeros around the inputs.
    """

    inputs: int
    kernel: int
    stride: int
    before: int
    after: int

    @property
    def length(self) -> int:
        """Outputs."""
        return (self.inputs + self.before + self.after - self.kernel) // self.stride + 1

    @property
    def covered(self) -> int:
        """Inputs from the first to the last that an output's kernel meets."""
        return max(0, min(self.inputs, self.reach(self.length) - self.before))

    @property
    def taps(self) -> int:
        """Kernel positions that meet an input, over all outputs."""
        return sum(len(self.inside(output)) for output in range(self.length))

    def inside(self, output: int) -> range:
        """The kernel positions that meet an input at one output."""
        start = output * self.stride - self.before
        return range(max(0, -start), max(0, min(self.kernel, self.inputs - start)))

    def reach(self, tile: int) -> int:
        """Inputs that a tile of outputs needs."""
        return (tile - 1) * self.stride + self.kernel

    def interior(self, tile: int) -> range:
        """The tiles that lie, whole, over inputs only: consecutive ones, of tiles numbered from the first output."""
        first = -(-self.before // (tile * self.stride))
        last = (self.inputs + self.before - self.reach(tile)) // (tile * self.stride)
        return range(first, max(first, min(last, self.length // tile - 1) + 1))
