"""From the program to fused kernels in NHWC, weights inside."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import tvm
from tvm.relax import transform

from edge.backends.gpu.convolution import READ_IN_PLACE, legalize_conv2d
from edge.backends.tvm import program
from edge.kernels import activation
from edge.records import EmitJob, Port

OURS = {"relax.nn.conv2d": legalize_conv2d, "relax.nn.gelu": activation.LEGALIZE["relax.nn.gelu"]}
LEGALIZE = (
    transform.LegalizeOps(OURS, skip_ops=list(READ_IN_PLACE)),
    transform.DeadCodeElimination(),
    transform.LegalizeOps(),
)


@dataclass(frozen=True)
class Network:
    """The network as kernels that no GPU has shaped yet, and its ports."""

    module: tvm.IRModule
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read(job: EmitJob) -> Network:
    """Import the saved program and fuse its operators."""
    exported = torch.export.load(job.program)
    return Network(program.fuse(program.read(exported), LEGALIZE), *program.ports(exported, job))
