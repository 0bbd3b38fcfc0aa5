"""A kernel that uses the dot product of Armv8.2, for libraries that a Cortex-A72 must not be given."""

import tvm
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T


@I.ir_module
class SumsOfSquares:
    """16 small whole numbers in float32 to the sums of squares of each four."""

    @T.prim_func(s_tir=True)
    def squares(values: T.Buffer((1, 16), "float32"), sums: T.Buffer((1, 4), "float32")):
        T.func_attr({"tirx.noalias": True})
        with T.sblock("root"):
            narrow: T.int8x16 = T.Cast("int8x16", values[0, T.ramp(0, 1, 16)])
            total: T.int32x4 = T.call_llvm_pure_intrin(
                "int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", T.broadcast(T.int32(0), 4), narrow, narrow
            )
            sums[0, T.ramp(0, 1, 4)] = T.Cast("float32x4", total)

    @R.function
    def main(values: R.Tensor((1, 16), "float32")) -> R.Tensor((1, 4), "float32"):
        module = SumsOfSquares
        return R.call_tir(module.squares, (values,), out_ty=R.Tensor((1, 4), "float32"))


def executable(target: dict) -> tvm.runtime.Executable:
    """The kernel compiled for a TVM target, with the instruction whatever core it names."""
    return tvm.compile(SumsOfSquares, target=tvm.target.Target({**target, "mattr": ["+neon", "+dotprod"]}))
