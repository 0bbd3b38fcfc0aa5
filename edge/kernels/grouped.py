"""Grouped convolution: every group of channels is convolved by itself; stride 1, padded with zeros to its own size.

    y[i, j, g, o] = sum over (dy, dx, c) of x[i + dy, j + dx, g, c] * w[dy, dx, g, c, o]

No network here has one. It is measured beside partial convolution (``edge/bench/operators.py``), by the plain schedule,
which tiles positions and the channels of one group; a dense convolution is one group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.kernels.core import Core
from edge.kernels.template import FLOAT32_BYTES, Array, Choice, Problem, Template

if TYPE_CHECKING:
    from tvm import te, tirx


@dataclass(frozen=True)
class Grouped(Problem):
    """One grouped convolution.

    Attributes:
        height, width: of the image, in and out.
        channels: in and out, a multiple of the groups.
        groups: how many.
        kernel: side of the square kernel, odd.
    """

    height: int
    width: int
    channels: int
    groups: int
    kernel: int = 3

    @property
    def depth(self) -> int:
        """Channels of a group."""
        return self.channels // self.groups

    @property
    def macs(self) -> int:
        """As if there were no border."""
        return self.height * self.width * self.channels * self.depth * self.kernel**2

    @property
    def bytes(self) -> int:
        """Image, weights and result."""
        return FLOAT32_BYTES * self.channels * (2 * self.height * self.width + self.depth * self.kernel**2)

    @property
    def key(self) -> str:
        """Such as "grouped 3x3 56x56x96 by 16"."""
        side = self.kernel
        return f"grouped {side}x{side} {self.height}x{self.width}x{self.channels} by {self.groups}"


@dataclass(frozen=True)
class Plain(Choice):
    """The plain schedule, which decides everything itself."""


class GroupedTemplate(Template[Grouped, Plain]):
    """Arguments: image (height, width, groups, depth), packed weights, result of the image's shape.

    The plain weights are (channels, depth, kernel, kernel): outputs, inputs of the group, rows, columns.
    """

    name = "grouped"
    problems = Grouped
    choices = Plain

    def space(self, problem: Grouped, core: Core) -> tuple[Plain, ...]:
        """One way."""
        return (Plain(),)

    def default(self, problem: Grouped, core: Core) -> Plain:
        """The one way."""
        return Plain()

    def kernel(self, problem: Grouped, choice: Plain, core: Core) -> tirx.PrimFunc:
        """See the class for the arguments."""
        from tvm import te, tirx

        from edge.kernels import plain

        height, width, side, border = problem.height, problem.width, problem.kernel, problem.kernel // 2
        group = (problem.groups, problem.depth)
        image = te.placeholder((height, width, *group), name="image")
        weights = te.placeholder((side, side, *group, problem.depth), name="weights")
        dy, dx, c = (te.reduce_axis((0, extent)) for extent in (side, side, problem.depth))

        def bordered(y: te.Var, x: te.Var, g: te.Var, channel: te.Var) -> tirx.PrimExpr:
            inside = tirx.all(y >= border, y < height + border, x >= border, x < width + border)
            return tirx.if_then_else(inside, image[y - border, x - border, g, channel], tirx.const(0, "float32"))

        padded = te.compute((height + 2 * border, width + 2 * border, *group), bordered, name="padded")
        result = te.compute(
            (height, width, *group),
            lambda y, x, g, o: te.sum(padded[y + dy, x + dx, g, c] * weights[dy, dx, g, c, o], axis=[dy, dx, c]),
            name="result",
        )
        function = te.create_prim_func([image, weights, result])
        return plain.schedule(function, plain.Vectors(core.lanes, core.registers))[0]

    def pack(self, problem: Grouped, choice: Plain, *weights: Array) -> tuple[Array, ...]:
        """The weights with the outputs of a group last."""
        shape = (problem.groups, problem.depth, problem.depth, problem.kernel, problem.kernel)
        (plain_weights,) = weights
        return (np.ascontiguousarray(plain_weights.reshape(shape).transpose(3, 4, 0, 2, 1), dtype=np.float32),)

    def reference(self, problem: Grouped, *arrays: Array) -> Array:
        """The formula of the module."""
        image, weights = arrays
        border = problem.kernel // 2
        padded = np.pad(image, ((border, border), (border, border), (0, 0), (0, 0)))
        kernel = weights.reshape(problem.groups, problem.depth, problem.depth, problem.kernel, problem.kernel)
        result = np.zeros_like(image)
        for dy in range(problem.kernel):
            for dx in range(problem.kernel):
                window = padded[dy : dy + problem.height, dx : dx + problem.width]
                result += np.einsum("hwgc,goc->hwgo", window, kernel[..., dy, dx])
        return result
