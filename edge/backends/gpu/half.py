"""float16 in memory, float32 in registers: weights and what lies between kernels take half the bytes, sums keep theirs.

OpenCL reads and writes float16 in memory with functions of its core (``vload_half``, ``vstore_half``); arithmetic in it
is an extension that drivers may lack. So kernels stay as they are, in float32, and only their accesses to memory
change. A language that has the type converts instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import PointerType, PrimType, TensorLoad

FLOAT, HALF = "float32", "float16"


def store_half(function: tirx.PrimFunc, half: Sequence[bool], has_type: bool) -> tirx.PrimFunc:
    """Make some of a device function's buffers float16.

    Args:
        function: lowered: its parameters are pointers, its buffers are flat.
        half: for each parameter, whether it points to float16.
        has_type: whether the language has the type; otherwise functions read and write it.
    """
    pointers = {
        old: tirx.Var(old.name, PointerType(PrimType(HALF), "global"))
        for old, is_half in zip(function.params, half, strict=True)
        if is_half
    }
    buffers: dict[tirx.Var, tirx.Var] = {}

    def declare(node: tirx.DeclBuffer) -> None:
        if node.data in pointers:
            name, shape = node.buffer.name, node.buffer.shape
            buffers[node.buffer] = tirx.decl_buffer(shape, HALF, name, data=pointers[node.data])

    tvm_ffi.structural_walk(function.body, (tirx.DeclBuffer, declare))

    def declared(node: tirx.DeclBuffer) -> tirx.Stmt:
        return tirx.DeclBuffer(buffers[node.buffer], data=pointers[node.data]) if node.buffer in buffers else node

    def loaded(node: TensorLoad) -> tirx.PrimExpr:
        return _load(buffers[node.source], node.indices[0], has_type) if node.source in buffers else node

    def stored(node: tirx.BufferStore) -> tirx.Stmt:
        if node.buffer not in buffers:
            return node
        return _store(buffers[node.buffer], node.value, node.indices[0], has_type)

    body = tvm_ffi.structural_map(
        function.body, [(tirx.DeclBuffer, declared), (TensorLoad, loaded), (tirx.BufferStore, stored)]
    )
    parameters = [pointers.get(parameter, parameter) for parameter in function.params]
    return tirx.PrimFunc(parameters, body, function.ret_type, function.attrs)


def _load(buffer: tirx.Var, index: tirx.PrimExpr, has_type: bool) -> tirx.PrimExpr:
    """float32 from float16 in memory."""
    lanes, first = _run(index)
    if has_type:
        return tirx.Cast(f"{FLOAT}x{lanes}" if lanes > 1 else FLOAT, tirx.BufferLoad(buffer, [index]))
    if first is None:
        scalars = [_load(buffer, element, has_type) for element in _elements(index)]
        return tirx.Shuffle(scalars, list(range(lanes)))
    name, dtype = ("vload_half", FLOAT) if lanes == 1 else (f"vload_half{lanes}", f"{FLOAT}x{lanes}")
    return tirx.call_pure_extern(dtype, name, 0, tirx.address_of(tirx.BufferLoad(buffer, [first])))


def _store(buffer: tirx.Var, value: tirx.PrimExpr, index: tirx.PrimExpr, has_type: bool) -> tirx.Stmt:
    """float32 to float16 in memory, to the nearest, ties to even."""
    lanes, first = _run(index)
    if has_type:
        return tirx.BufferStore(buffer, tirx.Cast(f"{HALF}x{lanes}" if lanes > 1 else HALF, value), [index])
    if first is None:
        raise ValueError(f"{buffer.name} is written here and there at once")
    name = "vstore_half_rte" if lanes == 1 else f"vstore_half{lanes}_rte"
    place = tirx.address_of(tirx.BufferLoad(buffer, [first]))
    return tirx.Evaluate(tirx.call_extern("int32", name, value, 0, place))


def _run(index: tirx.PrimExpr) -> tuple[int, tirx.PrimExpr | None]:
    """How many elements an index stands for, and the first of them; None where they are not neighbours."""
    if isinstance(index, tirx.Ramp):
        neighbours = isinstance(index.stride, tirx.IntImm) and int(index.stride) == 1
        return int(index.lanes), index.base if neighbours else None
    lanes = tvm.DataType(str(index.ty.dtype)).lanes
    return lanes, index if lanes == 1 else None


def _elements(index: tirx.PrimExpr) -> list[tirx.PrimExpr]:
    """The indices of a vector of them."""
    if not isinstance(index, tirx.Ramp):
        raise ValueError(f"no elements of {index} can be named")
    return [index.base + index.stride * step for step in range(int(index.lanes))]
