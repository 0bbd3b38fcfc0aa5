"""TVM: one shared library for the target, and one for the host where the host cannot load the target's.

The library holds the kernels as machine code, the program for TVM's virtual machine and the weights, packed as the
kernels read them. What loads it is TVM's runtime (libtvm_runtime and libtvm_ffi).

    the exported program ── program.read ──> Relax, channels last
        ── rewrite ──────────> our kernels where a pattern matches
        ── program.fuse ─────> kernels of TVM's where none does
        ── library.schedule ─> every kernel scheduled
        ── library.write ────> machine code
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from typing import Any

import torch
import tvm
from tvm import relax

from edge import processor, targets
from edge.backends.tvm import library, program
from edge.backends.tvm.rewrite import rewrite
from edge.backends.tvm.shares import shares, spelled
from edge.kernels.core import Core
from edge.kernels.template import Choice, Problem, Template
from edge.records import EmitJob, EmittedFile, Port, Tool
from edge.targets import Target
from edge.tuning import records

THREADS = "one for each of the fastest cores, on x86-64 for every two; TVM_NUM_THREADS decides otherwise"
"""How TVM's runtime counts where nobody tells it to."""
NOT_OURS = "kernels of TVM's own, with their shares of the time on this host"


@dataclass(frozen=True)
class Prepared:
    """The network as scheduled kernels, its ports, and what is worth knowing of it.

    Attributes:
        module: the same for the target and for the host that checks it, so that one program and one set of weights is
            verified.
        inputs, outputs: the library's ports.
        plain: names of the kernels that no template made.
        notes: for the report.
    """

    module: tvm.IRModule
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    plain: tuple[str, ...]
    notes: dict[str, Any]


def prepare(job: EmitJob) -> Prepared:
    """Turn the program into scheduled kernels in NHWC, weights inside."""
    target = Target.model_validate(job.target)
    core = Core.of(target)
    exported = torch.export.load(job.program)
    refused: list[str] = []

    def choose(template: Template[Any, Any], problem: Problem) -> Choice:
        recorded = records.chosen(target, template, problem, refused.append)
        return template.default(problem, core) if recorded is None else recorded

    ours = rewrite(program.read(exported), core, choose)
    module, plain = library.schedule(program.fuse(ours.module), core, choose)
    notes = {
        **{f"{name} kernels": count for name, count in sorted(ours.kernels.items())},
        **library.counted(plain),
        **({"refused": dict(sorted(ours.refusals.items()))} if ours.refusals else {}),
        **({"records refused": refused} if refused else {}),
        "weights_bytes": _constants_bytes(module),
        "threads by default": THREADS,
    }
    inputs, outputs = program.ports(exported, job)
    return Prepared(module, _tensors(inputs, "main({})"), _tensors(outputs, "main()[{}]"), tuple(plain), notes)


def emit(job: EmitJob, prepared: Prepared, precision: str) -> list[EmittedFile]:
    """Compile and link for the target, and for the host where it cannot load the target's library."""
    target = Target.model_validate(job.target)
    if processor.missing(target):
        builds = [(target, target.name, "target"), (targets.baseline(platform.machine()), "host", "host")]
    else:
        builds = [(target, target.name, "host")]
    files = []
    for core, name, runs_on in builds:
        file = f"{job.model}.{precision}.{name}.so"
        plan = library.write(prepared.module, core, job.folder / file)
        files.append(
            EmittedFile(
                file=file,
                runtime="tvm",
                tool=Tool("Apache TVM", tvm.__version__),
                inputs=prepared.inputs,
                outputs=prepared.outputs,
                runs_on=runs_on,
                notes={**prepared.notes, "peak_activation_bytes": plan.peak},
            )
        )
    if not prepared.plain:
        return files
    (host,) = (job.folder / file.file for file in files if file.runs_on == "host")
    costs = shares(host, [port.shape for port in prepared.inputs], prepared.plain)
    return [replace(file, notes={**file.notes, NOT_OURS: spelled(costs)}) for file in files]


def _tensors(ports: tuple[Port, ...], tensor: str) -> tuple[Port, ...]:
    """The ports, each with its place among the arguments or results as its tensor's name."""
    return tuple(replace(port, tensor=tensor.format(index)) for index, port in enumerate(ports))


def _constants_bytes(module: tvm.IRModule) -> int:
    sizes: list[int] = []

    def visit(expression: relax.Expr) -> None:
        if isinstance(expression, tvm.ir.GenericConst) and isinstance(expression.value, tvm.runtime.Tensor):
            sizes.append(expression.value.numpy().nbytes)

    relax.analysis.post_order_visit(module["main"], visit)
    return sum(sizes)
