"""Binds the operations of a saved program to their implementations and evaluates them in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import edge.runtimes.mil.ops  # noqa: F401  registers the implementations
from edge.runtimes.mil.dtypes import TensorType, tensor_type
from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.package import Package
from edge.runtimes.mil.registry import OPERATIONS, Operation
from edge.runtimes.mil.schema import MIL_pb2
from edge.runtimes.mil.values import Value, decode

_COMPRESSED_CONSTANT = "constexpr_"


@dataclass(frozen=True)
class Reference:
    """An argument that is another operation's output, by name."""

    name: str


@dataclass(frozen=True)
class Step:
    """One operation of the program, ready to run.

    Attributes:
        type: of operation.
        label: for messages.
        operation: its implementation.
        arguments: by name.
        outputs: names and types.
    """

    type: str
    label: str
    operation: Operation
    arguments: Mapping[str, tuple[Value | Reference, ...]]
    outputs: tuple[tuple[str, TensorType], ...]

    def run(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Evaluate on ``values``, which has what the arguments refer to; the outputs by name.

        Raises:
            MilError: the implementation refuses, or a result is not what the program declares.
        """
        arguments = {
            name: tuple(values[v.name] if isinstance(v, Reference) else v for v in bound)
            for name, bound in self.arguments.items()
        }
        try:
            results, precision = self.operation(arguments)
            return {
                name: _conform(result, declared, precision)
                for (name, declared), result in zip(self.outputs, results, strict=True)
            }
        except (MilError, ValueError, RuntimeError, IndexError) as error:
            raise MilError(f"{self.label}: {error}") from error


def _conform(result: Tensor, declared: TensorType, precision: torch.dtype | None) -> Tensor:
    """Check a result against its declaration and round it to the declared floating-point type."""
    if tuple(result.shape) != declared.shape:
        raise MilError(f"declared {declared}, computed shape {list(result.shape)}")
    if precision is not None and result.dtype == torch.float32:
        if precision != declared.element.torch:
            raise MilError(f"declared {declared}, its floating-point input is {precision}")
        return result.to(precision)
    if result.dtype != declared.element.torch:
        raise MilError(f"declared {declared}, computed {result.dtype}")
    return result


class Program:
    """A saved Core ML program.

    Attributes:
        inputs: declared types by input name, in order.
        outputs: names of the outputs, in order.
        opset: for example "CoreML6" (iOS 16).
        counts: operations by type, constants included.
        constants: values of constants by name, compressed ones decompressed.
        steps: what computes, in order.
    """

    def __init__(self, path: Path) -> None:
        """Read a ``.mlpackage`` and bind every operation in it.

        Raises:
            MilError: the package is malformed, or it holds an operation, an argument or a type that is not implemented.
        """
        self._package = Package(path)
        function = self._package.function
        self.opset = function.opset
        if self.opset not in function.block_specializations:
            raise MilError(f"the program has no block for its own opset {self.opset}")
        block = function.block_specializations[self.opset]
        self.inputs = {i.name: tensor_type(i.type) for i in function.inputs}
        self.outputs = tuple(block.outputs)
        self.counts: dict[str, int] = {}
        self.constants: dict[str, Value] = {}
        self.steps: list[Step] = []
        known = set(self.inputs)
        for operation in block.operations:
            self.counts[operation.type] = self.counts.get(operation.type, 0) + 1
            self._add(operation, known)
            known |= {o.name for o in operation.outputs}
        if missing := set(self.outputs) - known:
            raise MilError(f"no operation makes the output {', '.join(sorted(missing))}")

    def _add(self, operation: MIL_pb2.Operation, known: set[str]) -> None:
        outputs = ", ".join(o.name for o in operation.outputs)
        label = f"{operation.type} -> {outputs} ({self.opset})"
        try:
            if operation.type == "const":
                self._add_constant(operation)
                return
            step = self._bind(operation, label, known)
        except MilError as error:
            raise MilError(f"{label}: {error}") from error
        if operation.type.startswith(_COMPRESSED_CONSTANT):
            self.constants |= step.run(self.constants)
        else:
            self.steps.append(step)

    def _add_constant(self, operation: MIL_pb2.Operation) -> None:
        (output,) = operation.outputs
        value = operation.attributes["val"]
        if value.type != output.type:
            raise MilError("the value's type is not the output's")
        self.constants[output.name] = decode(value, self._package)

    def _bind(self, operation: MIL_pb2.Operation, label: str, known: set[str]) -> Step:
        if operation.type not in OPERATIONS:
            raise MilError("unknown operation")
        if operation.blocks:
            raise MilError("operations with blocks are not implemented")
        # Compressed constants before iOS 18 carry their arguments as attributes; "name" is a label, not an argument.
        arguments: dict[str, tuple[Value | Reference, ...]] = {
            name: (decode(value, self._package),) for name, value in operation.attributes.items() if name != "name"
        }
        for name, argument in operation.inputs.items():
            arguments[name] = tuple(self._argument(b, known) for b in argument.arguments)
        implementation = OPERATIONS[operation.type]
        implementation.check_arguments(frozenset(arguments))
        outputs = tuple((o.name, tensor_type(o.type)) for o in operation.outputs)
        return Step(operation.type, label, implementation, arguments, outputs)

    def _argument(self, binding: MIL_pb2.Argument.Binding, known: set[str]) -> Value | Reference:
        if binding.WhichOneof("binding") == "value":
            return decode(binding.value, self._package)
        if binding.name not in known:
            raise MilError(f"argument {binding.name} is not defined before it")
        return self.constants.get(binding.name, Reference(binding.name))

    @torch.no_grad()
    def __call__(
        self, feed: Mapping[str, np.ndarray], observe: Callable[[str, Tensor], None] | None = None
    ) -> dict[str, np.ndarray]:
        """Evaluate the program.

        Args:
            feed: one array per input, of the declared shape; converted (rounded) to the declared type.
            observe: called with the name and the value of every intermediate result, in order.

        Returns:
            The outputs by name, in the declared type.

        Raises:
            MilError: the feed does not fit, or an operation's result is not what the program declares.
        """
        if set(feed) != set(self.inputs):
            raise MilError(f"inputs {sorted(feed)} given, the program has {sorted(self.inputs)}")
        values = dict(self.constants)
        for name, declared in self.inputs.items():
            if feed[name].shape != declared.shape:
                raise MilError(f"input {name}: shape {list(feed[name].shape)} given, declared {declared}")
            values[name] = torch.from_numpy(np.ascontiguousarray(feed[name])).to(declared.element.torch)
        for step in self.steps:
            results = step.run(values)
            values |= results
            if observe is not None:
                for name, result in results.items():
                    observe(name, result)  # type: ignore[arg-type]
        return {name: values[name].numpy() for name in self.outputs}  # type: ignore[union-attr]
