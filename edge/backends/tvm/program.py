"""The network as TVM sees it: Relax operators with the channels last, weights inside."""

from __future__ import annotations

import torch
import tvm
from tvm.relax import transform
from tvm.relax.frontend.torch import from_exported_program

from edge.backends.tvm.clips import split_clips
from edge.kernels import activation


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
        transform.DeadCodeElimination(),
    ]
    return _run(module, passes)


def fuse(module: tvm.IRModule) -> tvm.IRModule:
    """The operators that are left as kernels, fused by TVM's own rules."""
    passes = [
        transform.DeadCodeElimination(),
        # The plain schedule vectorises over the last axis of the weights.
        transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]}),
        transform.Normalize(),
        transform.FoldConstant(),
        transform.LegalizeOps(activation.LEGALIZE),
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
