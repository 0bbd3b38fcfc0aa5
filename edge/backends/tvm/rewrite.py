"""Put kernels of our own in the place of the operators that patterns match."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, shape
from edge.backends.tvm.patterns import PATTERNS
from edge.backends.tvm.patterns.matching import Match, Refusal
from edge.kernels.core import Core
from edge.kernels.registry import template
from edge.kernels.template import Choice, Problem, Template
from edge.tuning.compiled import argument_shapes

OPAQUE = 8
"""TVM's kind of a kernel that nothing may be fused with."""

Choose = Callable[[Template[Any, Any], Problem], Choice]


@dataclass
class Rewritten:
    """What became of the network's operators.

    Attributes:
        module: with our kernels, and operators where no template fits.
        kernels: how many values each template computes.
        refusals: how often an operator was refused, by operator and reason.
    """

    module: tvm.IRModule
    kernels: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)


def rewrite(module: tvm.IRModule, core: Core, choose: Choose) -> Rewritten:
    """Replace what the patterns match; what nothing uses any more is left for dead code elimination.

    Args:
        module: the network as one dataflow block in A-normal form, channels last.
        core: that the kernels are for.
        choose: the choice for a template's problem.
    """
    function = module["main"]
    flow, done = Dataflow(function), Rewritten(module)
    matches: dict[relax.Var, Match] = {}
    for value in flow:
        for pattern in PATTERNS:
            outcome = pattern(flow, value)
            if isinstance(outcome, Match):
                matches[outcome.result] = outcome
                flow.claim(value, outcome.result)
                break
            if isinstance(outcome, Refusal):
                done.refusals[f"{outcome.operator}: {outcome.reason}"] += 1
                break
    needed = flow.needed({value: [used for used, _ in match.activations] for value, match in matches.items()})
    matches = {value: match for value, match in matches.items() if value in needed}
    done.kernels.update(match.template for match in matches.values())
    done.module = _Builder(function, matches, core, choose).build()
    return done


class _Builder:
    """Writes the function anew, binding by binding."""

    def __init__(
        self,
        function: relax.Function,
        matches: dict[relax.Var, Match],
        core: Core,
        choose: Choose,
    ) -> None:
        self.function, self.matches, self.core, self.choose = function, matches, core, choose
        self.builder = relax.BlockBuilder()
        self.kernels: dict[tuple[Problem, Choice], tuple[tvm.ir.GlobalVar, tuple[int, ...]]] = {}
        """With the shape of the result."""
        self.values: dict[relax.Var, relax.Expr] = {}
        self.flat: dict[relax.Expr, relax.Expr] = {}
        """What a value was before it was reshaped to the network's own shape."""

    def build(self) -> tvm.IRModule:
        function, builder = self.function, self.builder
        with builder.function("main", list(function.params)):
            with builder.dataflow():
                for binding in function.body.blocks[0].bindings:
                    if match := self.matches.get(binding.var):
                        self.values[binding.var] = self._kernel(match)
                    elif _is_view(binding.value):
                        source = self._current(binding.value.args[0])
                        self.values[binding.var] = self._shaped(source, shape(binding.var))
                    else:
                        self.values[binding.var] = builder.emit(self._current(binding.value), binding.var.name)
                result = builder.emit_output(self._current(function.body.body))
            builder.emit_func_output(result)
        return builder.get()

    def _current(self, expression: relax.Expr) -> relax.Expr:
        """An expression of the old function with the new function's values."""
        if isinstance(expression, relax.Var):
            return self.values.get(expression, expression)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self._current(element) for element in expression.fields])
        if isinstance(expression, relax.TupleGetItem):
            return relax.TupleGetItem(self._current(expression.tuple_value), expression.index)
        if isinstance(expression, relax.Call):
            arguments = [self._current(argument) for argument in expression.args]
            return relax.Call(expression.op, arguments, expression.attrs, expression.ty_args)
        return expression

    def _kernel(self, match: Match) -> relax.Expr:
        computing = template(match.template)
        choice = self.choose(computing, match.problem)
        key = (match.problem, choice)
        if key not in self.kernels:
            self.kernels[key] = self._add(computing, match.problem, choice)
        packed = [relax.const(np.ascontiguousarray(array)) for array in computing.pack(*key, *match.weights)]
        inputs = [self._shaped(self._current(value), wanted) for value, wanted in match.activations]
        kernel, made = self.kernels[key]
        call = relax.call_tir(kernel, relax.Tuple([*inputs, *packed]), relax.TensorType(made, "float32"))
        return self._shaped(self.builder.emit(call), shape(match.result))

    def _add(
        self, computing: Template[Any, Any], problem: Problem, choice: Choice
    ) -> tuple[tvm.ir.GlobalVar, tuple[int, ...]]:
        function = computing.kernel(problem, choice, self.core)
        name = re.sub(r"\W+", "_", problem.key.replace("→", "_to_")).strip("_")
        kernel = self.builder.add_func(function.with_attr({"global_symbol": name, "op_pattern": OPAQUE}), name)
        return kernel, argument_shapes(function)[-1]

    def _shaped(self, value: relax.Expr, wanted: tuple[int, ...]) -> relax.Expr:
        """The value in another shape; no data moves. What was reshaped before is taken from where it came."""
        source = self.flat.get(value, value)
        if shape(source) == wanted:
            return source
        reshaped = self.builder.emit(relax.op.reshape(source, wanted))
        self.flat[reshaped] = source
        return reshaped


def _is_view(expression: relax.Expr) -> bool:
    """Whether an expression leaves the elements in their order: a reshape, or a transpose of axes of length one."""
    if not isinstance(expression, relax.Call) or not isinstance(expression.op, tvm.ir.Op):
        return False
    if expression.op.name == "relax.permute_dims":
        extents = shape(expression.args[0])
        moved = [int(axis) for axis in expression.attrs.axes or reversed(range(len(extents)))]
        kept = [axis for axis in moved if extents[axis] > 1]
        return kept == sorted(kept)
    return bool(expression.op.name == "relax.reshape")
