"""Permutations that meet their inverse: a LayerNorm over the channels of an NCHW image is between two of them.

f(permute(x), permute(y), constant)  ->  permute(f(x, y, permuted constant)), if f takes each value by itself
permute(permute(x))                  ->  permute(x) by both, or x

TVM's layout conversion makes NHWC of what stands around convolutions; a permutation that the network itself has ends
it, and every shortcut behind would be moved there and back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edge.backends.tvm.dataflow import constant, shape

PERMUTE = "relax.permute_dims"
ELEMENTWISE = {
    "relax.abs",
    "relax.add",
    "relax.divide",
    "relax.exp",
    "relax.maximum",
    "relax.minimum",
    "relax.multiply",
    "relax.negative",
    "relax.nn.gelu",
    "relax.nn.relu",
    "relax.nn.silu",
    "relax.power",
    "relax.rsqrt",
    "relax.sigmoid",
    "relax.sqrt",
    "relax.subtract",
    "relax.tanh",
}


@tvm.ir.transform.module_pass(opt_level=0, name="MovePermutations")
def move_permutations(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """Rewrite the function ``main``; what nothing uses any more is left for dead code elimination."""
    mover = _Mover(module)
    result = tvm.IRModule(module.functions, attrs=module.attrs)
    result["main"] = mover.visit_expr(module["main"])
    return result


@mutator
class _Mover(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if not isinstance(call.op, tvm.ir.Op):
            return call
        if call.op.name == PERMUTE:
            return self._permuted(call.args[0], _axes(call))
        if call.op.name in ELEMENTWISE:
            return self._moved(call)
        return call

    def _permutation(self, value: relax.Expr) -> relax.Call | None:
        """The permutation that makes a value."""
        made = self.lookup_binding(value) if isinstance(value, relax.Var) else None
        if isinstance(made, relax.Call) and isinstance(made.op, tvm.ir.Op) and made.op.name == PERMUTE:
            return made
        return None

    def _permuted(self, value: relax.Expr, axes: list[int]) -> relax.Expr:
        if (before := self._permutation(value)) is not None:
            value, first = before.args[0], _axes(before)
            axes = [first[axis] for axis in axes]
        return value if axes == sorted(axes) else relax.op.permute_dims(value, axes)

    def _moved(self, call: relax.Call) -> relax.Expr:
        found = [made for argument in call.args if (made := self._permutation(argument)) is not None]
        if not found:
            return call
        axes = _axes(found[0])
        arguments = [self._source(argument, axes) for argument in call.args]
        if None in arguments:
            return call
        result = self.builder_.emit(relax.Call(call.op, arguments, call.attrs, call.ty_args))
        return relax.op.permute_dims(result, axes)

    def _source(self, argument: relax.Expr, axes: list[int]) -> Any:
        """The value of which an operand is the permutation by these axes; None if there is none without moving it."""
        if (made := self._permutation(argument)) is not None:
            return made.args[0] if _axes(made) == axes else None
        value = constant(argument)
        if value is None or value.ndim not in (0, len(axes)):
            return None
        return argument if value.ndim == 0 else relax.const(value.transpose(np.argsort(axes)))


def _axes(call: relax.Call) -> list[int]:
    rank = len(shape(call.args[0]))
    return [int(axis) % rank for axis in call.attrs.axes] if call.attrs.axes else list(reversed(range(rank)))
