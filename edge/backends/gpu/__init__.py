"""GPU artifacts: kernels as source, a launch plan and the weights, in one file; for OpenCL or for Metal.

    program ── network.py ──> fused kernels in NHWC ── program.py ──> calls on tensors
                                      │ edge/kernels/gpu                  │
                                  scheduled ── launches.py ──> source, launches ── plan.py ──> plan, weights
                                                                    └──────── archive.py ──────────┘

What runs an OpenCL artifact is a small host in plain C (``edge/runners/opencl``) on the phone's own driver: no TVM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import tvm

from edge.backends.gpu import archive, interfaces, launches, network, plan, program
from edge.backends.gpu.interfaces import Interface
from edge.backends.gpu.launches import Function
from edge.backends.gpu.network import Network
from edge.backends.gpu.program import Call
from edge.kernels.gpu.device import Device
from edge.kernels.gpu.schedule import schedule
from edge.records import EmitJob, EmittedFile, Tool
from edge.targets import Target


def prepare(job: EmitJob) -> Network:
    """Turn the program into fused kernels in NHWC that no GPU has shaped yet, weights inside."""
    return network.read(job)


def emit(job: EmitJob, prepared: Network, precision: str) -> list[EmittedFile]:
    """Schedule the kernels, write them as source, and plan their launches and their memory.

    Raises:
        ValueError: the target's GPU has neither OpenCL nor Metal.
    """
    target = Target.model_validate(job.target)
    interface = interfaces.of(target)
    line = program.read(prepared.module["main"], precision)
    source, functions, ways = _compile(prepared.module, line.calls, interface)
    planned = plan.make(line, functions, prepared.inputs, prepared.outputs)
    file = f"{job.model}.{precision}.{target.name}.{interface.name}"
    archive.write(job.folder / file, plan.members(planned, interface, source))
    return [
        EmittedFile(
            file=file,
            runtime=interface.name,
            tool=Tool("Apache TVM", tvm.__version__),
            inputs=prepared.inputs,
            outputs=prepared.outputs,
            runs_on="gpu",
            notes={
                "kernels": ways.total(),
                **{f"kernels {way}": count for way, count in sorted(ways.items())},
                "launches": len(planned.launches),
                "weights_bytes": len(planned.weights),
                "activations_bytes": planned.activation_bytes,
            },
        )
    ]


def _compile(
    module: tvm.IRModule, calls: Sequence[Call], interface: Interface
) -> tuple[str, list[Function], Counter[str]]:
    """Schedule and lower what is called, each kernel once for every way in which its parameters lie in memory.

    Returns:
        The source, what each call launches, and how many kernels each way of scheduling took.
    """
    kernels = dict.fromkeys(call.kernel for call in calls)
    scheduled = {kernel: schedule(module[kernel], interface.target, Device()) for kernel in kernels}
    sources: list[str] = []
    made: dict[tuple[str, tuple[bool, ...]], Function] = {}
    for call in calls:
        variant = (call.kernel, call.half)
        if variant not in made:
            again = sum(kernel == call.kernel for kernel, _ in made)
            name = f"{call.kernel}_{again}" if again else call.kernel
            source, made[variant] = launches.lower(scheduled[call.kernel].kernel, name, call.half, interface)
            sources.append(source)
    functions = [made[call.kernel, call.half] for call in calls]
    return "".join(sources), functions, Counter(kernel.way for kernel in scheduled.values())
