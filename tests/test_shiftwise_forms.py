"""Which of a shift-wise block's two forms a converter is served best with: both through it, timed.

`pytest -s tests/test_shiftwise_forms.py` prints the milliseconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge import processes, targets
from edge.formats import FORMATS
from edge.lowering import give_form, lower
from edge.models.shiftwise import Block, Config
from edge.models.shiftwise_merged import Form
from edge.models.shiftwise_tables import published
from edge.processes import Run
from edge.records import EmitJob, RunJob
from edge.toolchains import environments

pytestmark = pytest.mark.slow

CHANNELS, KERNEL, SIDE = 320, 47, 14
"""The stage with 18 of the 27 blocks."""
TIMED = ("tvm",)
"""Core ML's time would be our evaluator's. TFLite's file of the shifts is not the same from one conversion to the next,
and not always right, so there is nothing to compare; where it is right, it takes twice the time of the strips."""


class Stage(nn.Module):
    """One block on the feature map of an image."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, CHANNELS, 1)
        self.block = Block(published(CHANNELS, KERNEL), Config((), (), form=form, layer_scale=0.5))

    def forward(self, image: Tensor) -> Tensor:
        return self.block(self.stem(image))


def one_block(form: Form, format: str, folder: Path) -> Run:
    """A block's artifact on this host, one thread; if it gives a result, that is right."""
    network, converter = Stage(form).eval(), FORMATS[format].default
    images = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    lowered = give_form(lower(network, images[:2]), converter.forms, images[:2])
    folder.mkdir()
    program, check = folder / "program.pt2", folder / "images.npz"
    torch.export.save(lowered.program, program)
    np.savez(check, image=images.numpy())
    profile = targets.load("x86-64").model_dump(mode="json")
    job = EmitJob(
        converter.backend, "block", program, ("image",), ("features",), ("fp32",), check, check, profile, folder / "out"
    )
    job.folder.mkdir()
    environments.ensure(converter.environment, print)
    emission = processes.emit(job, converter.environment, 600)["fp32"]
    assert emission.status == "emitted", emission.reason
    file = next(file for file in emission.files if file.runs_on != "target")
    run = processes.run(
        RunJob(file.runtime, job.folder / file.file, file.inputs, file.outputs, check, folder / "results.npz")
    )
    if run.outputs is not None:
        with torch.no_grad():
            expected = network.double()(images.double()).numpy()
        assert np.abs(run.outputs["features"] - expected).max() < 1e-5 * np.abs(expected).max()
    return run


def milliseconds(run: Run) -> float:
    """Of one inference."""
    assert run.seconds is not None, run.reason
    return run.seconds * 1e3


@pytest.mark.parametrize("format", TIMED)
def test_strips_are_faster(format: str, tmp_path: Path) -> None:
    strips, shifts = (milliseconds(one_block(form, format, tmp_path / form)) for form in ("strips", "shifts"))
    print(f"\n{format}: strips {strips:.2f} ms, shifts {shifts:.2f} ms")
    assert strips < shifts


def test_executorch_runs_only_the_strips(tmp_path: Path) -> None:
    """It refuses the shifts when they run, with no word at the conversion. Should that change, time them."""
    print(f"\nexecutorch: strips {milliseconds(one_block('strips', 'executorch', tmp_path / 'strips')):.2f} ms")
    shifts = one_block("shifts", "executorch", tmp_path / "shifts")
    assert shifts.outputs is None
    assert "execute() failed" in shifts.reason
