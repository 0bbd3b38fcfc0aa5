"""Elementwise arithmetic, comparison, logic and type conversion. Binary operations broadcast as in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.registry import operation

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "real_div": torch.div,
    "pow": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
}

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "erf": torch.erf,
    "exp": torch.exp,
    "logical_not": torch.logical_not,
    "sqrt": torch.sqrt,
    "square": torch.square,
}


def _register_binary(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    @operation(name)
    def binary(x: Tensor, y: Tensor) -> Tensor:
        if x.dtype != y.dtype:
            raise MilError(f"operands of different types: {x.dtype} and {y.dtype}")
        return function(x, y)


def _register_unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @operation(name)
    def unary(x: Tensor) -> Tensor:
        return function(x)


for _name, _binary in _BINARY.items():
    _register_binary(_name, _binary)
for _name, _unary in _UNARY.items():
    _register_unary(_name, _unary)


@operation("log")
def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """``log(x + epsilon)``."""
    return torch.log(x + epsilon)


@operation("rsqrt")
def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """``1 / sqrt(x + epsilon)``."""
    return torch.rsqrt(x + epsilon)


@operation("inverse")
def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """``1 / (x + epsilon)``."""
    return torch.reciprocal(x + epsilon)


@operation("clip")
def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """``min(max(x, alpha), beta)``."""
    return torch.clamp(x, alpha, beta)


@operation("select")
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a`` where cond, ``b`` elsewhere."""
    return torch.where(cond, a, b)


_CAST_TYPES = {
    "bool": torch.bool,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
}


@operation("cast", computes=False)
def cast(x: Tensor, dtype: str) -> Tensor:
    """Convert; floating point to integer rounds towards zero."""
    if dtype not in _CAST_TYPES:
        raise MilError(f"unsupported dtype {dtype}")
    return x.to(_CAST_TYPES[dtype])
