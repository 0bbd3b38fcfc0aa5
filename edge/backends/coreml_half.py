"""What float16 costs with any of a Core ML program's operations in float32: the float32 program, rounded as it runs.

An operation in float16 gets its inputs and its constants rounded, computes, and has its result rounded: numerics.md's
float16 check, and what the converter's casts around an operation in float32 come to.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from edge.parity.metrics import sqnr_db
from edge.quantisation.search import Layer
from edge.runtimes.mil import Program
from edge.runtimes.mil.program import Reference, Step
from edge.runtimes.mil.values import Value

_MOVES = frozenset({"expand_dims", "identity", "reshape", "slice_by_index", "split", "squeeze", "transpose"})
"""Operations of one input that compute nothing: they are in whatever their input is in."""

_BEFORE_CAST = "_type_fp32"


class HalfSimulation:
    """The search's view of a program in float16."""

    def __init__(self, program: Program, samples: Mapping[str, np.ndarray]) -> None:
        """List the operations.

        Args:
            program: in float32.
            samples: calibration samples (N, ...) float32 by name of the program's input.
        """
        self._program, self._inputs = program, samples
        self._halves = {id(step): _with_half_constants(step) for step in program.steps}
        self._makers = _makers(program)
        self._expected: dict[int, dict[str, np.ndarray]] = {}
        self.samples, self.blurred = len(next(iter(samples.values()))), 0
        self.layers = _layers(program)

    def layer_of(self, value: str) -> str:
        """The name of the layer that a value is the result of, or was moved from.

        While coremltools chooses types, what makes an output has another name: a cast has taken the output's own.
        """
        value = value.removesuffix(_BEFORE_CAST)
        return self._makers.get(value, value)

    def sqnr_db(self, kept: frozenset[str], samples: Sequence[int]) -> Iterator[float]:
        """Of each of these samples against the float32 program, in dB; of several outputs the worst."""
        for sample in samples:
            feed = {name: array[sample : sample + 1] for name, array in self._inputs.items()}
            if sample not in self._expected:
                self._expected[sample] = self._program(feed)
            results = self._outputs(feed, kept)
            yield min(min(sqnr_db(exact, results[name])) for name, exact in self._expected[sample].items())

    @torch.no_grad()
    def _outputs(self, feed: Mapping[str, np.ndarray], kept: frozenset[str]) -> dict[str, np.ndarray]:
        """The outputs with these layers in float32."""
        values: dict[str, Value] = {name: _rounded(torch.from_numpy(array)) for name, array in feed.items()}
        for step in self._program.steps:
            if self.layer_of(step.outputs[0][0]) in kept:
                values |= step.run(values)
                continue
            arguments = {name: _rounded(values[name]) for name in _reads(step)}
            values |= {name: _rounded(result) for name, result in self._halves[id(step)].run(arguments).items()}
        return {name: _rounded(values[name]).numpy() for name in self._program.outputs}  # type: ignore[union-attr]


def _rounded(value: Value) -> Value:
    return value.half().float() if isinstance(value, Tensor) and value.dtype == torch.float32 else value


def _with_half_constants(step: Step) -> Step:
    return dataclasses.replace(
        step,
        arguments={
            name: tuple(v if isinstance(v, Reference) else _rounded(v) for v in bound)
            for name, bound in step.arguments.items()
        },
    )


def _reads(step: Step) -> Iterator[str]:
    """Names of the values that are no constants."""
    return (v.name for bound in step.arguments.values() for v in bound if isinstance(v, Reference))


def _makers(program: Program) -> dict[str, str]:
    """For every value, the name of the layer it is a result of: moves pass it on, and several results have one name."""
    makers: dict[str, str] = {}
    for step in program.steps:
        moved = next(_reads(step), None) if step.type in _MOVES else None
        layer = makers.get(moved, moved) if moved else step.outputs[0][0]
        makers |= dict.fromkeys((name for name, _ in step.outputs), layer)
    return makers


def _layers(program: Program) -> tuple[Layer, ...]:
    shapes = {name: declared.shape for name, declared in program.inputs.items()}
    found = []
    for step in program.steps:
        shapes |= {name: declared.shape for name, declared in step.outputs}
        name, declared = step.outputs[0]
        if step.type not in _MOVES and declared.element.torch == torch.float32:
            found.append(Layer(name, step.type, _multiply_adds(step, shapes), name))
    return tuple(found)


def _multiply_adds(step: Step, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Of one inference."""

    def shape(argument: str) -> tuple[int, ...]:
        (value,) = step.arguments[argument]
        return shapes[value.name] if isinstance(value, Reference) else tuple(value.shape)  # type: ignore[union-attr]

    match step.type:
        case "conv" | "linear":  # weights (out, in / groups, ...)
            each = math.prod(shape("weight")[1:])
        case "matmul":  # the product's width is y's, however it stands
            each = math.prod(shape("x")[-2:]) // step.outputs[0][1].shape[-2]
        case _:
            each = 0
    return math.prod(step.outputs[0][1].shape) * each
