"""The network as TVM sees it: Relax operators with the channels last, weights inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import tvm
from tvm.relax import transform
from tvm.relax.frontend.torch import from_exported_program

from edge.backends.tvm.clips import split_clips
from edge.backends.tvm.permutations import move_permutations
from edge.kernels import activation
from edge.records import EmitJob, Port

LEGALIZE = (transform.LegalizeOps(activation.LEGALIZE),)


def read(program: torch.export.ExportedProgram) -> tvm.IRModule:
    """The program in A-normal form, in NHWC, with everything folded that is constant."""
    module = from_exported_program(program, keep_params_as_input=False, unwrap_unit_return_tuple=True)
    passes = [
        transform.DecomposeOpsForInference(),
        split_clips,
        transform.CanonicalizeBindings(),
        # Channels last: the axis that every convolution vectorises over is contiguous in weights and result.
        transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "OHWI"]}),
        transform.Normalize(),
        transform.FoldConstant(),
        move_permutations,
        transform.EliminateCommonSubexpr(),  # an image that several read is permuted once
        transform.CanonicalizeBindings(),
        transform.DeadCodeElimination(),
    ]
    return _run(module, passes)


def ports(program: torch.export.ExportedProgram, job: EmitJob) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The inputs and outputs of the program that a job saved, by the job's names."""
    signature = program.graph_signature
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    return _ports(job.inputs, signature.user_inputs, values), _ports(job.outputs, signature.user_outputs, values)


def _ports(names: tuple[str, ...], nodes: Sequence[str], values: dict[str, torch.Tensor]) -> tuple[Port, ...]:
    shapes = [tuple(values[node].shape) for node in nodes]
    return tuple(
        Port(name, shape, "NCHW" if len(shape) == 4 else "", name) for name, shape in zip(names, shapes, strict=True)
    )


def fuse(module: tvm.IRModule, legalize: Sequence[tvm.transform.Pass] = LEGALIZE) -> tvm.IRModule:
    """The operators that are left as kernels, fused by TVM's own rules.

    Args:
        module: operators, and maybe kernels among them.
        legalize: the passes that make kernels of operators.
    """
    passes = [
        transform.DeadCodeElimination(),
        # Kernels that no template makes read neighbouring channels of the weights too.
        transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]}),
        transform.Normalize(),
        transform.FoldConstant(),
        *legalize,
        transform.RewriteDataflowReshape(),  # a view is no kernel
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    ]
    return _run(module, passes)


def _run(module: tvm.IRModule, passes: list[tvm.transform.Pass]) -> tvm.IRModule:
    with tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(module)
