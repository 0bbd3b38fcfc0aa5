"""Both forms of GELU reach the Core ML program; coremltools by itself makes one of them the other."""

from __future__ import annotations

import subprocess
import sys

import coremltools as ct
import pytest
import torch
from torch import nn

import edge.backends.coreml  # noqa: F401  (brings our conversion)
from edge.toolchains.places import REPOSITORY

MODES = {"none": "EXACT", "tanh": "TANH_APPROXIMATION"}


def mode_of(approximate: str) -> str:
    network = nn.GELU(approximate=approximate)
    program = torch.export.export(network, (torch.zeros(1, 8),)).run_decompositions({})
    model = ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS16)
    (operation,) = [o for o in model._mil_program.functions["main"].operations if o.op_type == "gelu"]
    return str(operation.inputs["mode"].val)


@pytest.mark.parametrize("approximate", MODES)
def test_the_form_is_the_one_asked_for(approximate: str):
    assert mode_of(approximate) == MODES[approximate]


def test_without_ours_coremltools_drops_the_form():
    """Once this fails, coremltools is mended and ``edge/backends/coreml_gelu.py`` can go."""
    script = (
        "import coremltools as ct, torch\n"
        "gelu = torch.nn.GELU(approximate='tanh')\n"
        "program = torch.export.export(gelu, (torch.zeros(1, 8),)).run_decompositions({})\n"
        "model = ct.convert(program, convert_to='mlprogram', minimum_deployment_target=ct.target.iOS16)\n"
        "functions = model._mil_program.functions['main']\n"
        "print([str(o.inputs['mode'].val) for o in functions.operations if o.op_type == 'gelu'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "['EXACT']"
