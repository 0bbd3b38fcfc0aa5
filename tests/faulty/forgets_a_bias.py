"""The real Core ML exporter, given a program in which one BatchNorm's shift was lost: what a half-done fold leaves."""

import torch

from edge.backends.coreml import emit
from edge.backends.coreml import prepare as prepare_program
from edge.records import EmitJob
from tests.faulty.tampering import with_program

__all__ = ["emit", "prepare"]


def prepare(job: EmitJob) -> object:
    def forget(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
        name = next(n for n in program.state_dict if n.endswith("folded_bias"))
        with torch.no_grad():
            program.state_dict[name].zero_()
        return program

    return prepare_program(with_program(job, forget))
