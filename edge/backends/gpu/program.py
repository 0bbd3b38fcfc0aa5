"""The network as a straight line of kernel calls on tensors: what a plan and the kernels' variants are made from."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax

FLOAT, HALF = np.dtype(np.float32), np.dtype(np.float16)


@dataclass(eq=False)
class Tensor:
    """A tensor of the program.

    Attributes:
        elements: how many.
        dtype: that kernels compute with.
        stored: how it lies in memory.
        content: of a constant.
    """

    elements: int
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    content: np.ndarray | None = None

    @property
    def bytes(self) -> int:
        """In memory."""
        return self.elements * self.stored.itemsize


@dataclass(frozen=True)
class Call:
    """One call of a kernel: what it reads and what it writes, in the order of its parameters."""

    kernel: str
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]

    @property
    def half(self) -> tuple[bool, ...]:
        """Which of its parameters lie in memory as float16 though it computes with float32."""
        return tuple(tensor.dtype == FLOAT and tensor.stored == HALF for tensor in (*self.reads, *self.writes))


@dataclass(frozen=True)
class Program:
    """A network's calls in order, with its inputs, outputs and constants."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    calls: tuple[Call, ...]


def read(main: relax.Function, precision: str) -> Program:
    """Read main as a program.

    Args:
        main: calls kernels, one after the other.
        precision: "fp16" stores in float16 what is float32 and neither input nor output.

    Raises:
        ValueError: something in main is no call of a kernel, or an input or output is not float32.
    """
    reader = _Reader()
    for parameter in main.params:
        reader.known[parameter] = _of_type(parameter.ty)
    for block in main.body.blocks:
        for binding in block.bindings:
            reader.known[binding.var] = reader.evaluate(binding)
    inputs = tuple(reader.known[parameter][0] for parameter in main.params)
    outputs = reader.tensors(main.body.body)
    if any(tensor.dtype != FLOAT for tensor in (*inputs, *outputs)):
        raise ValueError("inputs and outputs of GPU artifacts are float32 only")
    kept = {id(tensor) for tensor in (*inputs, *outputs)}
    if precision == "fp16":
        every = (tensor for call in reader.calls for tensor in (*call.reads, *call.writes))
        for tensor in every:
            if tensor.dtype == FLOAT and id(tensor) not in kept:
                tensor.stored = HALF
    return Program(inputs, outputs, tuple(reader.constants), tuple(reader.calls))


class _Reader:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.constants: list[Tensor] = []
        self.known: dict[relax.Var, tuple[Tensor, ...]] = {}

    def evaluate(self, binding: relax.Binding) -> tuple[Tensor, ...]:
        """The tensors that a binding stands for; a call is noted."""
        value = binding.value
        if not isinstance(value, tvm.ir.Call):
            return self.tensors(value)
        if value.op.name == "relax.reshape":
            return self.tensors(value.args[0])  # the same elements in the same order
        if value.op.name != "relax.call_tir":
            raise ValueError(f"{value.op.name} is no kernel")
        writes = _of_type(binding.var.ty)
        self.calls.append(Call(value.args[0].name_hint, self.tensors(value.args[1]), writes))
        return writes

    def tensors(self, expression: relax.Expr) -> tuple[Tensor, ...]:
        """The tensors of an expression, those of nested tuples in order."""
        if isinstance(expression, relax.Var):
            return self.known[expression]
        if isinstance(expression, tvm.ir.GenericConst):
            array = expression.value.numpy()
            self.constants.append(Tensor(array.size, array.dtype, array.dtype, array))
            return (self.constants[-1],)
        if isinstance(expression, relax.Tuple):
            return tuple(tensor for part in expression.fields for tensor in self.tensors(part))
        if isinstance(expression, relax.TupleGetItem):
            return (self.tensors(expression.tuple_value)[expression.index],)
        raise ValueError(f"{type(expression).__name__} is no tensor")


def _of_type(type_: Any) -> tuple[Tensor, ...]:
    """New tensors of a type, those of a tuple in order."""
    if isinstance(type_, relax.TupleType):
        return tuple(tensor for part in type_.fields for tensor in _of_type(part))
    dtype = np.dtype(str(type_.dtype))
    return (Tensor(prod(int(length) for length in type_.shape), dtype, dtype),)
