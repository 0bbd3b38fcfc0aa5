"""From scheduled kernels to source, and how it is launched.

TVM lowers a kernel to device functions and a host function that launches them. The device functions become the source.
Of the host function only the launches are taken: which device functions run, on which buffers, in groups of which size.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from edge.backends.gpu.half import store_half
from edge.backends.gpu.interfaces import Interface

NEEDLESS = re.compile(
    r"^(#ifdef cl_khr_fp16\n.*?^#endif\n+"  # asks for float16 arithmetic where there is a pointer to float16
    r"|__kernel void [^{]*;\n"  # declares functions, of which none calls another
    r"|#include <metal_stdlib>\n.*?^};\n+"  # is needed once, and its union for numbers as arguments never
    r"|// Function: [^\n]*\n)",
    re.MULTILINE | re.DOTALL,
)
"""What TVM writes before every function."""
_build = importlib.import_module("tvm.tirx.build")  # ``tirx.build`` itself is a function of that name


@dataclass(frozen=True)
class Launch:
    """One launch of one device function.

    Attributes:
        kernel: the device function.
        arguments: buffers, by their place among the kernel's parameters and, after those, its scratch memory.
        groups: how many groups, along x, y and z.
        local: work-items of a group, along x, y and z.
    """

    kernel: str
    arguments: tuple[int, ...]
    groups: tuple[int, int, int]
    local: tuple[int, int, int]


@dataclass(frozen=True)
class Function:
    """A kernel of the network: what it launches, one after the other, and the bytes of its scratch buffers."""

    scratch: tuple[int, ...]
    launches: tuple[Launch, ...]


def lower(kernel: tirx.PrimFunc, name: str, half: tuple[bool, ...], interface: Interface) -> tuple[str, Function]:
    """Write one kernel of the network as source.

    Args:
        kernel: scheduled.
        name: what the source calls it; its device functions' names begin with that.
        half: which of its parameters lie in memory as float16; those beyond its end do not.
        interface: what for.

    Returns:
        The source, and what launches it.
    """
    module = tvm.IRModule({name: kernel.with_attr("global_symbol", name)})
    passes, _, finalize = tirx.get_default_tir_pipeline(interface.target)
    host, devices = _build.split_host_device_mods(passes(tirx.transform.BindTarget(interface.target)(module)))
    (entry,) = host.functions.values()
    ((target, functions),) = devices.items()
    function = _launches(entry, list(kernel.params))
    for launch in function.launches:
        stored = [place < len(half) and half[place] for place in launch.arguments]
        functions[launch.kernel] = store_half(functions[launch.kernel], stored, interface.half)
    source = _build.codegen_build(finalize()(functions), target).inspect_source()
    return NEEDLESS.sub("", source), function


def _launches(host: tirx.PrimFunc, parameters: list[Any]) -> Function:
    """Read the launches of a host function; its buffers are told apart by identity, since names are not unique."""
    buffers: list[Any] = list(parameters)
    views: list[tuple[Any, Any]] = []
    scratch: list[int] = []
    calls: list[tvm.ir.Call] = []

    def declared(node: tirx.DeclBuffer) -> None:
        if _is_call(node.data, "tirx.buffer_data"):
            views.append((node.buffer, node.data.args[0]))

    def allocated(node: tirx.AllocBuffer) -> None:
        buffers.append(node.buffer)
        scratch.append(prod(int(length) for length in node.buffer.shape) * tvm.DataType(node.buffer.dtype).itemsize)

    def called(node: tvm.ir.Call) -> None:
        if _is_call(node, "tirx.call_ffi_kernel"):
            calls.append(node)

    tvm_ffi.structural_walk(
        host.body, [(tirx.DeclBuffer, declared), (tirx.AllocBuffer, allocated), (tvm.ir.Call, called)], order="post"
    )

    def place(buffer: Any) -> int:
        for view, original in views:
            if view.same_as(buffer):
                return place(original)
        (index,) = (index for index, known in enumerate(buffers) if known.same_as(buffer))
        return index

    return Function(tuple(scratch), tuple(_launch(call, place) for call in calls))


def _launch(call: tvm.ir.Call, place: Any) -> Launch:
    axes = [str(axis) for axis in call.attrs.launch_params]
    name, *arguments = call.args
    extents = {axis: int(extent) for axis, extent in zip(axes, arguments[len(arguments) - len(axes) :], strict=True)}
    buffers = [argument.args[0] for argument in arguments[: len(arguments) - len(axes)]]

    def grid(kind: str) -> tuple[int, int, int]:
        x, y, z = (extents.get(f"{kind}.{axis}", 1) for axis in "xyz")
        return x, y, z

    return Launch(str(name.value), tuple(map(place, buffers)), grid("blockIdx"), grid("threadIdx"))


def _is_call(node: Any, name: str) -> bool:
    return isinstance(node, tvm.ir.Call) and getattr(node.op, "name", "") == name
