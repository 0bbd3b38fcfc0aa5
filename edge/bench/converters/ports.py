"""The ports of a program, for artifacts that keep its layout, NCHW."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.export import ExportedProgram

from edge.records import EmitJob, Port


def of_program(
    program: ExportedProgram, job: EmitJob, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs.

    Args:
        program: the job's.
        job: has the pipeline's names, in order.
        inputs: the artifact's own names, in the same order.
        outputs: the same for the outputs.
    """
    values = {
        node.name: node.meta["val"] for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)
    }
    signature = program.graph_signature

    def ports(nodes: Sequence[str], names: Sequence[str], tensors: Sequence[str]) -> tuple[Port, ...]:
        shapes = [tuple(values[node].shape) for node in nodes]
        return tuple(
            Port(name, shape, "NCHW" if len(shape) == 4 else "", tensor)
            for shape, name, tensor in zip(shapes, names, tensors, strict=True)
        )

    return ports(signature.user_inputs, job.inputs, inputs), ports(signature.user_outputs, job.outputs, outputs)
