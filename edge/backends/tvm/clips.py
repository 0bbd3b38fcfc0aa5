"""Clamping in two steps, which TVM can lay out: it knows no layout for ``clip`` and moves the tensor before and after.

clip(x, low, high)  ->  minimum(maximum(x, low), high), without a bound that is infinite
"""

from __future__ import annotations

import math

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator


@tvm.ir.transform.module_pass(opt_level=0, name="SplitClips")
def split_clips(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """Rewrite every ``clip`` of the function ``main``."""
    splitter = _Splitter(module)
    result = tvm.IRModule(module.functions, attrs=module.attrs)
    result["main"] = splitter.visit_expr(module["main"])
    return result


@mutator
class _Splitter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if call.op != tvm.ir.Op.get("relax.clip"):
            return call
        value, *bounds = call.args
        low, high = (float(bound.value) for bound in bounds)
        dtype = value.ty.dtype
        if math.isfinite(low):
            value = self.builder_.emit(relax.op.maximum(value, relax.const(low, dtype)))
        if math.isfinite(high):
            value = self.builder_.emit(relax.op.minimum(value, relax.const(high, dtype)))
        return value
