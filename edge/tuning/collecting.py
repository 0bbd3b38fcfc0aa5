"""What there is to tune in a network: the problems that the TVM backend's patterns find in it, and the kernels between.

Only shapes matter here, so a registered network is built with whatever weights it begins with.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from edge.backends.tvm import library
from edge.backends.tvm import program as relax_program
from edge.backends.tvm.rewrite import rewrite
from edge.formats import FORMATS
from edge.kernels.core import Core
from edge.kernels.template import Choice, Problem, Template
from edge.lowering import give_form, lower
from edge.models import find
from edge.tuning.task import Task


def tasks(model: str, core: Core) -> Counter[Task]:
    """The problems of a network's kernels, in the network's order, and how often each is computed.

    Args:
        model: a registered network's name, or a saved ``ExportedProgram`` (.pt2).
        core: that they are computed on.

    Raises:
        UsageError: there is no network of that name.
        ExportError: the network cannot be lowered.
    """
    found: Counter[Task] = Counter()

    def note(template: Template[Any, Any], problem: Problem) -> Choice:
        found[Task(template.name, problem, core)] += 1
        return template.default(problem, core)

    ours = rewrite(relax_program.read(_lowered(model)), core, note)
    for name, function in library.unscheduled(relax_program.fuse(ours.module)):
        if all(parameter.dtype == "float32" for parameter in function.params):
            note(library.STOCK, library.problem(name, function))
    return found


def _lowered(model: str) -> ExportedProgram:
    defined: nn.Module | ExportedProgram
    if model.endswith(".pt2"):
        defined = torch.export.load(Path(model))
        (name,) = defined.graph_signature.user_inputs
        image = next(node.meta["val"] for node in defined.graph.nodes if node.name == name)
        sample = torch.rand(tuple(image.shape))
    else:
        entry = find(model)
        torch.manual_seed(0)
        sample = torch.rand(entry.input_shape)
        defined = entry.build().eval()
    forms = FORMATS["tvm"].default.forms
    return give_form(lower(defined, sample, model=model), forms, sample, model=model).program
