"""The real Core ML exporter, given a program whose GELU is the tanh form: 68 dB, which fp16 would hide."""

import torch

from edge.backends.coreml import emit
from edge.backends.coreml import prepare as prepare_program
from edge.records import EmitJob
from tests.faulty.tampering import with_program

__all__ = ["emit", "prepare"]


def prepare(job: EmitJob) -> object:
    def approximate(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
        for node in program.graph.nodes:
            if node.target is torch.ops.aten.gelu.default:
                node.kwargs = {"approximate": "tanh"}
        return program

    return prepare_program(with_program(job, approximate))
