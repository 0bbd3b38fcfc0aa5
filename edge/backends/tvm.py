"""TVM: one shared library for the target, and one for the host where the host cannot load the target's.

The library holds the kernels as machine code, the program for TVM's virtual machine and the weights. What loads it is
TVM's runtime (libtvm_runtime and libtvm_ffi).
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tvm
from tvm import relax, tirx
from tvm.relax import transform
from tvm.relax.frontend.torch import from_exported_program

from edge import targets
from edge.kernels import activation, plain
from edge.records import EmitJob, EmittedFile, Port, Tool
from edge.targets import Target
from edge.toolchains import debian


@dataclass(frozen=True)
class Prepared:
    """The network as kernels that no core has shaped yet, its ports, and the size of its weights."""

    module: tvm.IRModule
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    constants_bytes: int


def prepare(job: EmitJob) -> Prepared:
    """Turn the program into fused kernels in NHWC, weights inside."""
    program = torch.export.load(job.program)
    module = from_exported_program(program, keep_params_as_input=False, unwrap_unit_return_tuple=True)
    lower = tvm.transform.Sequential(
        [
            transform.DecomposeOpsForInference(),
            transform.CanonicalizeBindings(),
            # Channels last: the axis that every convolution vectorises over is contiguous in weights and result.
            transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]}),
            transform.Normalize(),
            transform.FoldConstant(),
            transform.LegalizeOps({"relax.nn.gelu": activation.legalize_gelu}),
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.FuseOps(),
            transform.FuseTIR(),
            transform.DeadCodeElimination(),
        ]
    )
    with tvm.transform.PassContext(opt_level=3):
        module = lower(module)
    signature = program.graph_signature
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    return Prepared(
        module,
        _ports(job.inputs, [values[name] for name in signature.user_inputs], "main({})"),
        _ports(job.outputs, [values[name] for name in signature.user_outputs], "main()[{}]"),
        _constants_bytes(module),
    )


def emit(job: EmitJob, prepared: Prepared, precision: str) -> list[EmittedFile]:
    """Schedule, compile and link for the target, and for the host where it cannot load the target's library."""
    target = Target.model_validate(job.target)
    host = targets.baseline(platform.machine())
    if target.core.triple == host.core.triple:
        builds = [(target, target.name, "host")]
    else:
        builds = [(target, target.name, "target"), (host, "host", "host")]
    return [
        EmittedFile(
            file=(file := f"{job.model}.{precision}.{name}.so"),
            runtime="tvm",
            tool=Tool("Apache TVM", tvm.__version__),
            inputs=prepared.inputs,
            outputs=prepared.outputs,
            runs_on=runs_on,
            notes={**_build(prepared.module, core, job.folder / file), "constants_bytes": prepared.constants_bytes},
        )
        for core, name, runs_on in builds
    ]


def _ports(names: tuple[str, ...], values: list[torch.Tensor], tensor: str) -> tuple[Port, ...]:
    return tuple(
        Port(name, tuple(value.shape), "NCHW" if value.ndim == 4 else "", tensor.format(index))
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    )


def _constants_bytes(module: tvm.IRModule) -> int:
    sizes: list[int] = []

    def visit(expression: relax.Expr) -> None:
        if isinstance(expression, tvm.ir.GenericConst) and isinstance(expression.value, tvm.runtime.Tensor):
            sizes.append(expression.value.numpy().nbytes)

    relax.analysis.post_order_visit(module["main"], visit)
    return sum(sizes)


def _build(module: tvm.IRModule, target: Target, library: Path) -> dict[str, Any]:
    """Write the library for one core.

    Returns:
        How many kernels there are, and how each was scheduled.
    """
    assert target.tvm is not None, "the table of formats asks for it"
    vectors = plain.Vectors(target.core.vector_bits // 32, target.core.vector_registers)
    scheduled, ways = tvm.IRModule(module.functions, attrs=module.attrs), Counter[str]()
    for name, function in module.functions.items():
        if isinstance(function, tirx.PrimFunc):
            scheduled[name], way = plain.schedule(function, vectors)
            ways[way] += 1
    with tvm.transform.PassContext(opt_level=3):
        executable = tvm.compile(scheduled, target=tvm.target.Target(target.tvm.model_dump(mode="json")["target"]))
    executable.export_library(str(library), fcompile=_link_with(target))
    return {"kernels": ways.total(), **{f"kernels {way}": count for way, count in sorted(ways.items())}}


def _link_with(target: Target) -> Callable[..., None]:
    """What ``export_library`` calls with the library's name and the object files."""
    assert target.tvm is not None
    linker = target.tvm.linker
    debian.ensure(linker.package, (linker.package,))
    program = debian.program(linker.package, linker.program)

    def link(library: str, objects: list[str], **_: Any) -> None:
        # No libraries: what the kernels call is in TVM's runtime and in the C library, which are loaded before them.
        options = ("-shared", "--strip-debug", "--build-id=none", "-z", "noexecstack", *linker.options)
        done = program.run(*options, "-o", library, *objects)
        if done.returncode:
            raise RuntimeError(f"{linker.program} could not link {Path(library).name}: {done.stderr.strip()[:200]}")

    return link
