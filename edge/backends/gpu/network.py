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


@dataclass(frozen=True)
class Network:
    """The network as kernels that no GPU has shaped yet, and its ports."""

    module: tvm.IRModule
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read(job: EmitJob) -> Network:
    """Import the saved program and fuse its operators."""
    exported = torch.export.load(job.program)
    fuse = tvm.transform.Sequential(
        [
            # Neighbouring work-items read and write neighbouring channels, of the weights too.
            transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]}),
            transform.Normalize(),
            transform.FoldConstant(),
            transform.LegalizeOps(OURS, skip_ops=list(READ_IN_PLACE)),
            transform.DeadCodeElimination(),
            transform.LegalizeOps(),
            transform.RewriteDataflowReshape(),  # a view is no kernel
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.FuseOps(),
            transform.FuseTIR(),
            transform.DeadCodeElimination(),
        ]
    )
    with tvm.transform.PassContext(opt_level=3):
        module = fuse(program.read(exported))
    signature = exported.graph_signature
    values = {node.name: node.meta["val"] for node in exported.graph.nodes if "val" in node.meta}
    return Network(
        module,
        _ports(job.inputs, [values[name] for name in signature.user_inputs]),
        _ports(job.outputs, [values[name] for name in signature.user_outputs]),
    )


def _ports(names: tuple[str, ...], values: list[torch.Tensor]) -> tuple[Port, ...]:
    return tuple(
        Port(name, tuple(value.shape), "NCHW" if value.ndim == 4 else "", name)
        for name, value in zip(names, values, strict=True)
    )
