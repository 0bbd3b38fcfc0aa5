"""Weights that the quantizer of TFLite files does not do by itself: channels of zeros, and very large ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Sqnr, TinyNetwork
from edge import processes, worker
from edge.formats import FORMATS
from edge.records import EmittedFile, RunJob
from edge.toolchains import environments

pytestmark = pytest.mark.slow

LIMIT_S = 300
CHANNELS = 8


class Pruned(nn.Module):
    """A depthwise, a pointwise and a fully connected layer; every other filter is zero, and every one has a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(3, CHANNELS, 1),
                nn.Conv2d(CHANNELS, CHANNELS, 3, groups=CHANNELS),
                nn.Linear(CHANNELS, CHANNELS),
            ]
        )
        with torch.no_grad():
            for layer in self.layers:
                layer.weight[::2] = 0
                layer.bias.copy_(torch.linspace(-1, 1, CHANNELS))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of (N, 3, H, W)."""
        pointwise, depthwise, linear = self.layers
        return linear(depthwise(pointwise(image)).mean((2, 3)))


class Wide(nn.Module):
    """The second convolution has 36 MiB of weights in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3072, 8, 8), nn.Conv2d(3072, 3072, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of (N, 3, H, W)."""
        return self.layers(image).mean((2, 3))


Emitted = Callable[[nn.Module], tuple[EmittedFile, float]]


@pytest.fixture
def in_int8(tiny: TinyNetwork, sqnr: Sqnr, tmp_path: Path) -> Emitted:
    """Emits a network's int8 file, runs it, and gives its SQNR in dB against float64."""

    def emitted(network: nn.Module) -> tuple[EmittedFile, float]:
        images = torch.randn(8, 3, 16, 16)
        program, samples = tmp_path / "program.pt2", tmp_path / "samples.npz"
        torch.export.save(torch.export.export(network.eval(), (images[:1],)), program)
        np.savez(samples, image=images.numpy())
        chosen = FORMATS["tflite"].default
        environments.ensure(chosen.environment, print)
        job = replace(
            tiny.job("tflite_litert", tmp_path / "files", "int8"),
            program=program,
            calibration=samples,
            check_inputs=samples,
        )
        emission = processes.emit(job, environment=chosen.environment, limit_s=LIMIT_S)["int8"]
        assert emission.status == "emitted", emission.reason
        (file,) = emission.files
        run = RunJob(file.runtime, job.folder / file.file, file.inputs, file.outputs, samples, tmp_path / "out.npz")
        with torch.no_grad():
            oracle = network.double()(images.double()).numpy()
        return file, sqnr(oracle, worker.run_all(run)[0]["logits"])

    return emitted


def test_a_channel_of_zeros_keeps_its_bias(in_int8: Emitted) -> None:
    """Pruning leaves filters that are all zero."""
    torch.manual_seed(0)
    file, reached_db = in_int8(Pruned())
    assert reached_db > 30
    assert "mixed_precision" not in file.notes, "no layer had to stay in float"
    assert file.notes["not_delegated"] == {}, "XNNPACK takes all of it"
    assert file.notes["largest_weight_error_quanta"] <= 0.5


def test_a_convolution_may_have_more_than_32_mib_of_weights(in_int8: Emitted) -> None:
    """ConvNeXt's last stage has, from `large` on."""
    torch.manual_seed(0)
    file, reached_db = in_int8(Wide())
    assert reached_db > 30
    assert file.notes["not_delegated"] == {}
    assert file.notes["largest_weight_error_quanta"] <= 0.5
