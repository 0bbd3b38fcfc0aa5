"""What an operation implementation is: a function of torch tensors and plain Python values.

The signature is the contract: its parameters are the arguments the implementation understands, their annotations say
what a program's value is converted to, their defaults are MIL's. An argument without a parameter is an error, never
ignored.

    @operation("softmax")
    def softmax(x: Tensor, axis: int = -1) -> Tensor: ...

A computing operation sees its float16 tensors as float32, and the evaluator rounds its result to the declared type: one
rounding per operation, as numerics.md defines the float16 check. An operation that defines types itself (a cast, a
decompression) is registered with ``computes=False``: it gets the stored types and returns exactly the declared one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.values import Value

Ints = tuple[int, ...]
Flags = tuple[bool, ...]
Tensors = tuple[Tensor, ...]

Result = Tensor | Tensors
_Function = TypeVar("_Function", bound=Callable[..., Result])


def _one_tensor(values: tuple[Value, ...]) -> Tensor:
    (value,) = values
    if not isinstance(value, Tensor):
        raise MilError(f"expected a tensor, got {value!r}")
    return value


def _string(values: tuple[Value, ...]) -> str:
    (value,) = values
    if not isinstance(value, str):
        raise MilError("expected a string, got a tensor")
    return value


_CONVERTERS: dict[Any, Callable[[tuple[Value, ...]], Any]] = {
    Tensor: _one_tensor,
    Tensors: lambda values: tuple(_one_tensor((v,)) for v in values),
    Ints: lambda values: tuple(int(i) for i in _one_tensor(values).reshape(-1).tolist()),
    Flags: lambda values: tuple(bool(i) for i in _one_tensor(values).reshape(-1).tolist()),
    int: lambda values: int(_one_tensor(values).item()),
    float: lambda values: float(_one_tensor(values).item()),
    bool: lambda values: bool(_one_tensor(values).item()),
    str: _string,
}


def _converter(annotation: Any) -> Callable[[tuple[Value, ...]], Any]:
    """Of a parameter; ``X | None`` is converted as X."""
    if annotation not in _CONVERTERS:
        (annotation,) = (a for a in annotation.__args__ if a is not type(None))
    return _CONVERTERS[annotation]


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype == torch.float16 else value
    if isinstance(value, tuple):
        return tuple(_widened(v) for v in value)
    return value


def _precision(value: Any) -> torch.dtype | None:
    if isinstance(value, tuple) and value:
        return _precision(value[0])
    return value.dtype if isinstance(value, Tensor) and value.dtype.is_floating_point else None


@dataclass(frozen=True)
class Operation:
    """One implementation.

    Attributes:
        name: MIL's.
        function: the implementation.
        converters: by argument name.
        required: the arguments without a default.
        computes: whether float16 is widened on the way in and the result is rounded on the way out.
    """

    name: str
    function: Callable[..., Result]
    converters: Mapping[str, Callable[[tuple[Value, ...]], Any]]
    required: frozenset[str]
    computes: bool

    def check_arguments(self, names: frozenset[str]) -> None:
        """Raise ``MilError`` for an argument that is not understood or one that is missing."""
        if unknown := names - self.converters.keys():
            raise MilError(f"unknown argument {', '.join(sorted(unknown))}")
        if missing := self.required - names:
            raise MilError(f"missing argument {', '.join(sorted(missing))}")

    def __call__(self, arguments: Mapping[str, tuple[Value, ...]]) -> tuple[Tensors, torch.dtype | None]:
        """Run the implementation.

        Args:
            arguments: the program's values by argument name; several only for a variadic argument.

        Returns:
            The results, and the floating-point type the program must declare for the floating-point ones among them:
            that of the first floating-point argument, or None where the operation defines its own.
        """
        converted = {
            name: converter(arguments[name]) for name, converter in self.converters.items() if name in arguments
        }
        if not self.computes:
            return _as_tuple(self.function(**converted)), None
        precision = next((p for p in map(_precision, converted.values()) if p is not None), None)
        return _as_tuple(self.function(**{name: _widened(v) for name, v in converted.items()})), precision


def _as_tuple(result: Result) -> Tensors:
    return result if isinstance(result, tuple) else (result,)


OPERATIONS: dict[str, Operation] = {}


def operation(name: str, *, computes: bool = True) -> Callable[[_Function], _Function]:
    """Register the implementation of a MIL operation; a second one for the same name is an error."""

    def decorate(function: _Function) -> _Function:
        if name in OPERATIONS:
            raise ValueError(f"operation {name} is registered twice")
        hints = get_type_hints(function)
        parameters = inspect.signature(function).parameters
        OPERATIONS[name] = Operation(
            name=name,
            function=function,
            converters={p: _converter(hints[p]) for p in parameters},
            required=frozenset(p for p, v in parameters.items() if v.default is inspect.Parameter.empty),
            computes=computes,
        )
        return function

    return decorate
