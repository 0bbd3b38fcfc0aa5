"""What coremltools' own passes and its quantisation make of a network, where we keep them from changing or failing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil.mil.passes.defs.optimize_elementwise_binary import fuse_elementwise_to_batchnorm
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
from torch import Tensor, nn

from edge import worker
from edge.backends import coreml
from edge.records import EmitJob, EmittedFile, RunJob


class ScaleAndShift(nn.Module):
    """What is left of a norm that no convolution can take: γx + β behind an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 3)
        self.scale, self.shift = nn.Parameter(torch.randn(48, 1, 1)), nn.Parameter(torch.randn(48, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return F.gelu(self.scale * F.gelu(self.conv(image)) + self.shift)


class ZerosTwice(nn.Module):
    """A convolution and a norm that both add the same 128 zeros, which coremltools stores once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 128, 5), nn.LayerNorm(128)
        nn.init.zeros_(self.conv.get_parameter("bias"))

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.conv(image).permute(0, 2, 3, 1))


def image() -> Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def seeded(network: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return network().eval()


@torch.no_grad()
def oracle(network: nn.Module) -> np.ndarray:
    return network.double()(image().double()).numpy()


def emit(network: nn.Module, precision: str, folder: Path) -> tuple[EmittedFile, np.ndarray]:
    """The file, and what it computes."""
    torch.export.save(torch.export.export(network, (image(),)), folder / "program.pt2")
    check = folder / "check.npz"
    np.savez(check, image=image().numpy())
    job = EmitJob(
        backend="edge.backends.coreml",
        model="network",
        program=folder / "program.pt2",
        inputs=("image",),
        outputs=("features",),
        precisions=(precision,),
        calibration=check,
        check_inputs=check,
        target={},
        folder=folder,
    )
    (file,) = coreml.emit(job, coreml.prepare(job), precision)
    run = RunJob(file.runtime, folder / file.file, file.inputs, file.outputs, check, folder / "results.npz")
    return file, worker.run_all(run)[0]["features"]


def test_a_scale_and_a_shift_keep_float32s_accuracy(tmp_path: Path, sqnr: Any) -> None:
    network = seeded(ScaleAndShift)
    file, features = emit(network, "fp32", tmp_path)
    assert file.notes["operator_types"] == {"batch_norm": 1, "conv": 1, "gelu": 2}
    assert sqnr(oracle(network), features) > 130


def test_without_our_pass_coremltools_loses_it(tmp_path: Path, sqnr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once this fails, coremltools is mended and ``edge/backends/coreml_scale_and_shift.py`` can go."""
    monkeypatch.setitem(PASS_REGISTRY.passes, "common::fuse_elementwise_to_batchnorm", fuse_elementwise_to_batchnorm)
    network = seeded(ScaleAndShift)
    _, features = emit(network, "fp32", tmp_path)
    assert sqnr(oracle(network), features) < 115


def test_a_constant_that_a_convolution_and_a_norm_share_does_not_stop_int8(tmp_path: Path, sqnr: Any) -> None:
    network = seeded(ZerosTwice)
    file, features = emit(network, "int8", tmp_path)
    assert file.notes["quantised_weights"] == 1
    assert sqnr(oracle(network), features) > 30
