"""The real Core ML exporter, given a program with two channels of one weight swapped."""

import torch

from edge.backends.coreml import emit
from edge.backends.coreml import prepare as prepare_program
from edge.records import EmitJob
from tests.faulty.tampering import with_program

__all__ = ["emit", "prepare"]


def prepare(job: EmitJob) -> object:
    def swap(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
        name = next(n for n, t in program.state_dict.items() if t.ndim == 4 and t.shape[0] > 1)
        with torch.no_grad():
            program.state_dict[name][[0, 1]] = program.state_dict[name][[1, 0]]
        return program

    return prepare_program(with_program(job, swap))
