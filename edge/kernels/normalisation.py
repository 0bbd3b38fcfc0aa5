"""Normalisation with the channels last: LayerNorm over the channels, and global response normalisation.

LayerNorm, of each row of channels by itself:

    out = (x - mean) / sqrt(variance + epsilon) * scale + bias

Several rows at a time, so that their sums do not wait for each other; each row is read three times, from the first
cache, and its mean is subtracted before anything is squared.

Global response normalisation (GRN), of an image (ConvNeXt V2, arXiv:2301.00808):

    G[c] = sqrt(sum of x[c]^2 over the pixels)      out = x + x scale[c] G[c] / (mean of G over c + epsilon) + bias[c]

The sums go over pixels, so they are taken for all channels side by side; then the image is scaled in a second pass.

Traffic binds both: a value is read, used in two multiply-adds, and written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edge.kernels.core import Core
from edge.kernels.lines import Expression
from edge.kernels.template import FLOAT32_BYTES, Array, Choice, Problem, Template

ROWS = (1, 2, 4, 8)
VECTORS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Normalisation(Problem):
    """A normalisation of values in rows of channels.

    Attributes:
        rows: pixels.
        channels: of each.
        epsilon: see the formulas.
    """

    rows: int
    channels: int
    epsilon: float

    @property
    def macs(self) -> int:
        """Two for each value: its square, and its scale and shift."""
        return 2 * self.rows * self.channels

    @property
    def bytes(self) -> int:
        """Input, result, scale and bias."""
        return FLOAT32_BYTES * 2 * self.channels * (self.rows + 1)

    @property
    def key(self) -> str:
        """Such as "3136x96 epsilon 1e-06"."""
        return f"{self.rows}x{self.channels} epsilon {self.epsilon:g}"


@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """LayerNorm over the channels."""

    @property
    def key(self) -> str:
        """Such as "layer norm 3136x96 epsilon 1e-06"."""
        return f"layer norm {super().key}"


@dataclass(frozen=True)
class ResponseNorm(Normalisation):
    """Global response normalisation of an image of ``rows`` pixels."""

    @property
    def key(self) -> str:
        """Such as "response norm 196x1536 epsilon 1e-06"."""
        return f"response norm {super().key}"


@dataclass(frozen=True)
class Together(Choice):
    """What is computed side by side.

    Attributes:
        rows: of the input.
        vectors: registers of channels in a row.
    """

    rows: int
    vectors: int


def _space(problem: Normalisation, core: Core) -> tuple[Together, ...]:
    """Sums that fit in half of the registers, in vectors that the channels have; the sums of one vector always."""
    vectors = max(1, problem.channels // core.lanes)
    return tuple(
        Together(rows, width)
        for rows in ROWS
        for width in VECTORS
        if rows <= problem.rows and width <= vectors and (rows * width <= core.registers // 2 or rows == width == 1)
    )


class LayerNormTemplate(Template[LayerNorm, Together]):
    """LayerNorm; its plain weights are scale and bias (channels)."""

    name = "layer_norm"
    problems = LayerNorm
    choices = Together

    def space(self, problem: LayerNorm, core: Core) -> tuple[Together, ...]:
        """Sums that fit in half of the registers."""
        return _space(problem, core)

    def default(self, problem: LayerNorm, core: Core) -> Together:
        """The most sums, of as many rows as can be: only rows share the work at a row's end."""
        return max(self.space(problem, core), key=lambda choice: (choice.rows * choice.vectors, choice.rows))

    def kernel(self, problem: LayerNorm, choice: Together, core: Core) -> tirx.PrimFunc:
        """Arguments: the input (rows, channels), scale, bias, the result."""
        rows, channels, lanes = problem.rows, problem.channels, min(core.lanes, problem.channels)
        each = range(choice.rows)
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            source, scale, bias, result = _arguments(self.name, problem)
            with T.sblock("root"), T.parallel(-(-rows // choice.rows)) as block:
                # The last block ends with the last row: what it shares with the one before is computed twice.
                first = T.min(block * choice.rows, rows - choice.rows)
                sums = T.alloc_buffer((choice.rows, choice.vectors, lanes), scope="global")
                mean = T.alloc_buffer((choice.rows,), scope="global")
                inverse = T.alloc_buffer((choice.rows,), scope="global")

                def average(row: int) -> Expression:
                    parts = (sums[row, vector, lane] for vector in range(choice.vectors) for lane in range(lanes))
                    return sum(parts, start=T.float32(0)) * (1 / channels)

                def clear() -> None:
                    with T.vectorized(lanes) as lane:
                        for row, vector in product(each, range(choice.vectors)):
                            T.buffer_store(sums, T.float32(0), [row, vector, lane])

                def add(channel: Expression, vector: int, lane: Expression) -> None:
                    for row in each:
                        value = sums[row, vector, lane] + source[first + row, channel]
                        T.buffer_store(sums, value, [row, vector, lane])

                def add_square(channel: Expression, vector: int, lane: Expression) -> None:
                    for row in each:
                        centred = source[first + row, channel] - mean[row]
                        T.buffer_store(sums, sums[row, vector, lane] + centred * centred, [row, vector, lane])

                def write(channel: Expression, vector: int, lane: Expression) -> None:
                    for row in each:
                        centred = source[first + row, channel] - mean[row]
                        value = centred * (inverse[row] * scale[channel]) + bias[channel]
                        T.buffer_store(result, value, [first + row, channel])

                clear()
                _each_channel(channels, lanes, choice.vectors, add)
                for row in each:
                    T.buffer_store(mean, average(row), [row])
                clear()
                _each_channel(channels, lanes, choice.vectors, add_square)
                for row in each:
                    T.buffer_store(inverse, T.float32(1) / T.sqrt(average(row) + T.float32(problem.epsilon)), [row])
                _each_channel(channels, lanes, choice.vectors, write)
        return builder.get()

    def pack(self, problem: LayerNorm, choice: Together, *weights: Array) -> tuple[Array, ...]:
        """Scale and bias as they are."""
        return tuple(np.ascontiguousarray(array, np.float32) for array in weights)

    def reference(self, problem: LayerNorm, *arrays: Array) -> Array:
        """The formula of this module."""
        source, scale, bias = arrays
        centred = source - source.mean(axis=1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + problem.epsilon) * scale + bias


class ResponseNormTemplate(Template[ResponseNorm, Together]):
    """Global response normalisation; its plain weights are scale and bias (channels)."""

    name = "response_norm"
    problems = ResponseNorm
    choices = Together

    def space(self, problem: ResponseNorm, core: Core) -> tuple[Together, ...]:
        """Sums that fit in half of the registers."""
        return _space(problem, core)

    def default(self, problem: ResponseNorm, core: Core) -> Together:
        """As many channels side by side as can be, for whole lines of the cache; then rows, to hide latency."""
        return max(self.space(problem, core), key=lambda choice: (choice.vectors, choice.rows))

    def kernel(self, problem: ResponseNorm, choice: Together, core: Core) -> tirx.PrimFunc:
        """Arguments: the input (rows, channels), scale, bias, the result."""
        rows, channels, lanes = problem.rows, problem.channels, min(core.lanes, problem.channels)
        width = lanes * choice.vectors
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            source, scale, bias, result = _arguments(self.name, problem)
            with T.sblock("root"):
                norms = T.alloc_buffer((channels,))
                factors = T.alloc_buffer((channels,))
                whole, rest = divmod(rows, choice.rows)
                with T.parallel(-(-channels // width)) as block:
                    sums = T.alloc_buffer((choice.rows, choice.vectors, lanes), scope="global")
                    # The last block ends with the last channel: what it shares with the one before is summed twice.
                    first = T.min(block * width, channels - width)
                    each = list(product(range(choice.rows), range(choice.vectors)))

                    def add(row: Expression, slot: int, vector: int, lane: Expression) -> None:
                        value = source[row, first + vector * lanes + lane]
                        T.buffer_store(sums, sums[slot, vector, lane] + value * value, [slot, vector, lane])

                    with T.vectorized(lanes) as lane:
                        for slot, vector in each:
                            T.buffer_store(sums, T.float32(0), [slot, vector, lane])
                        with T.serial(whole) as group:
                            for slot, vector in each:
                                add(group * choice.rows + slot, slot, vector, lane)
                        for slot, vector in product(range(rest), range(choice.vectors)):
                            add(whole * choice.rows + slot, slot, vector, lane)
                        for vector in range(choice.vectors):
                            total = sum((sums[slot, vector, lane] for slot in range(choice.rows)), start=T.float32(0))
                            T.buffer_store(norms, T.sqrt(total), [first + vector * lanes + lane])
                mean = T.alloc_buffer((1,), scope="global")
                T.buffer_store(mean, T.float32(0), [0])
                with T.serial(channels) as channel:
                    T.buffer_store(mean, mean[0] + norms[channel] * (1 / channels), [0])

                def weigh(channel: Expression, vector: int, lane: Expression) -> None:
                    value = scale[channel] * norms[channel] / (mean[0] + T.float32(problem.epsilon)) + T.float32(1)
                    T.buffer_store(factors, value, [channel])

                _each_channel(channels, lanes, choice.vectors, weigh)
                with T.parallel(rows) as row:

                    def write(channel: Expression, vector: int, lane: Expression) -> None:
                        T.buffer_store(result, source[row, channel] * factors[channel] + bias[channel], [row, channel])

                    _each_channel(channels, lanes, choice.vectors, write)
        return builder.get()

    def pack(self, problem: ResponseNorm, choice: Together, *weights: Array) -> tuple[Array, ...]:
        """Scale and bias as they are."""
        return tuple(np.ascontiguousarray(array, np.float32) for array in weights)

    def reference(self, problem: ResponseNorm, *arrays: Array) -> Array:
        """The formula of this module."""
        source, scale, bias = arrays
        norms = np.sqrt((source**2).sum(axis=0))
        return source + source * scale * norms / (norms.mean() + problem.epsilon) + bias


def _arguments(name: str, problem: Normalisation) -> list[tirx.Buffer]:
    """Name the function and declare its arguments: the input, scale, bias and the result."""
    T.func_name(name)
    T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
    image, channels = (problem.rows, problem.channels), (problem.channels,)
    shapes = {"source": image, "scale": channels, "bias": channels, "result": image}
    return [T.arg(argument, T.buffer(shape)) for argument, shape in shapes.items()]


def _each_channel(channels: int, lanes: int, vectors: int, body: Callable[[Expression, int, Expression], None]) -> None:
    """Write a body for all channels: groups of vectors in a loop, then single vectors, then what fills none.

    Args:
        channels: how many.
        lanes: of a vector.
        vectors: of a group.
        body: gets the channel, the vector's number in its group, and the lane.
    """
    whole, rest = divmod(channels, lanes * vectors)
    with T.serial(whole) as group, T.vectorized(lanes) as lane:
        for vector in range(vectors):
            body((group * vectors + vector) * lanes + lane, vector, lane)
    start = channels - rest
    for vector in range(rest // lanes):
        with T.vectorized(lanes) as lane:
            body(start + vector * lanes + lane, vector, lane)
    if rest % lanes:
        with T.vectorized(rest % lanes) as lane:
            body(channels - rest % lanes + lane, vectors - 1, lane)
