"""The network's bindings as patterns see them: what makes a value, and who uses it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tvm
from tvm import relax

from edge.kernels.template import Array

CHANNELS_LAST = (0, 2, 3, 1)
"""From NCHW to NHWC."""


class Dataflow:
    """The dataflow block of a Relax function in A-normal form. Values are told apart by identity: names may repeat."""

    def __init__(self, function: relax.Function) -> None:
        """Raises ValueError where the function is not one dataflow block."""
        blocks = function.body.blocks
        if len(blocks) != 1 or not isinstance(blocks[0], relax.DataflowBlock):
            raise ValueError(f"the network is {len(blocks)} blocks of bindings, not one dataflow block")
        self.bindings = list(blocks[0].bindings)
        self._values = {binding.var: binding.value for binding in self.bindings}
        self._users: dict[relax.Var, list[relax.Var | None]] = defaultdict(list)
        """None is whoever called the function: what it returns has a use that no binding shows."""
        for binding in self.bindings:
            for used in relax.analysis.free_vars(binding.value):
                self._users[used].append(binding.var)
        for returned in relax.analysis.free_vars(function.body.body):
            self._users[returned].append(None)
        self._claimed: set[relax.Var] = set()

    def __iter__(self) -> Iterator[relax.Var]:
        return iter(self._values)

    def call(self, value: relax.Expr, *operators: str) -> relax.Call | None:
        """The call that makes a value, if it is one of these operators."""
        made = self._values.get(value) if isinstance(value, relax.Var) else value
        if isinstance(made, relax.Call) and isinstance(made.op, tvm.ir.Op) and made.op.name in operators:
            return made
        return None

    def users(self, value: relax.Var) -> tuple[relax.Var | None, ...]:
        """Who uses a value, each once; None is whoever called the function."""
        return tuple(self._users[value])

    def next(self, value: relax.Var, *operators: str) -> tuple[relax.Var, relax.Call] | None:
        """The one use of a value, if it is a call to one of these operators and nothing else uses the value.

        None too where another kernel computes that call: of two convolutions that are added up, one adds the other.
        """
        users = self._users[value]
        if len(users) != 1 or users[0] is None or users[0] in self._claimed:
            return None
        call = self.call(users[0], *operators)
        return (users[0], call) if call is not None else None

    def claim(self, first: relax.Var, result: relax.Var) -> None:
        """Note that a kernel computes everything from a value to its result, which no other may take over."""
        waiting: list[relax.Var | None] = [first]
        while waiting:
            value = waiting.pop()
            if value is not None and value not in self._claimed:
                self._claimed.add(value)
                waiting += [] if value.same_as(result) else self._users[value]

    def needed(self, computed: Mapping[relax.Var, Iterable[relax.Expr]]) -> set[relax.Var]:
        """The values that the results need.

        Args:
            computed: what kernels read, by the values that they compute.
        """
        found, waiting = set[relax.Var](), [value for value, users in self._users.items() if None in users]
        while waiting:
            if (value := waiting.pop()) not in found:
                found.add(value)
                read = computed[value] if value in computed else [self._values.get(value, value)]
                waiting += (used for part in read for used in relax.analysis.free_vars(part))
        return found

    def used_once(self, value: relax.Expr) -> bool:
        """Whether a value has one use: a kernel that takes it over leaves nobody without it."""
        return len(self._users[value]) == 1

    def channels(self, value: relax.Expr) -> tuple[relax.Expr, int, int] | None:
        """The image and the range of channels, if a value is such a slice of an image in NHWC."""
        call = self.call(value, "relax.strided_slice")
        if call is None:
            return None
        image, axes, begin, end, *strides = call.args
        start, stop = (int(bound.fields[0]) for bound in (begin, end))
        step = int(strides[0].fields[0]) if strides else 1
        if [int(axis) % 4 for axis in axes.fields] != [3] or len(shape(image)) != 4 or step != 1:
            return None
        return image, start, min(stop, shape(image)[-1])

    def planes(self, value: relax.Expr) -> relax.Expr | None:
        """The image with its channels first, if a value is that image with its channels last."""
        call = self.call(value, "relax.permute_dims")
        return call.args[0] if call is not None and tuple(call.attrs.axes or ()) == CHANNELS_LAST else None


def shape(value: relax.Expr) -> tuple[int, ...]:
    """The shape of a value.

    Raises:
        ValueError: it is not known.
    """
    extents = getattr(value.ty, "shape", None)
    if extents is None:
        raise ValueError("a shape that is not known when the network is compiled")
    return tuple(int(extent) for extent in extents)


def constant(value: relax.Expr) -> Array | None:
    """The array of a constant."""
    is_constant = isinstance(value, tvm.ir.GenericConst) and isinstance(value.value, tvm.runtime.Tensor)
    return np.asarray(value.value.numpy()) if is_constant else None
