"""The programming interfaces that kernels are written for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import tvm

from edge.targets import Target


@dataclass(frozen=True)
class Interface:
    """One interface to GPUs.

    Attributes:
        name: of the runtime, and the artifact's ending.
        api: as targets name it.
        kind: TVM's name.
        source: what the artifact calls the file with the kernels.
        preamble: what the source begins with.
        half: whether kernels may use float16 as a type; otherwise OpenCL's functions read and write it in memory.
    """

    name: str
    api: str
    kind: str
    source: str
    preamble: str
    half: bool

    @cached_property
    def target(self) -> tvm.target.Target:
        """The target that TVM compiles for."""
        return tvm.target.Target({"kind": self.kind}, host={"kind": "llvm"})


METAL = "#include <metal_stdlib>\nusing namespace metal;\n\n"
INTERFACES = (
    Interface("opencl", "OpenCL", "opencl", "kernels.cl", preamble="", half=False),
    Interface("metal", "Metal", "metal", "kernels.metal", METAL, half=True),
)


def of(target: Target) -> Interface:
    """The interface that reaches a target's GPU.

    Raises:
        ValueError: it has none of those that kernels are written for.
    """
    apis = target.gpu.apis if target.gpu else ()
    for interface in INTERFACES:
        if interface.api in apis:
            return interface
    raise ValueError(f"{target.name}'s GPU is reached by {', '.join(apis) or 'nothing'}; OpenCL or Metal is needed")
