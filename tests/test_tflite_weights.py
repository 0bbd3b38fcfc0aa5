"""A channel whose filter is all zero, as pruning leaves it, keeps its bias in an int8 TFLite file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Sqnr, TinyNetwork
from edge import processes, worker
from edge.formats import FORMATS
from edge.records import RunJob
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


def test_a_channel_of_zeros_keeps_its_bias(tiny: TinyNetwork, sqnr: Sqnr, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, images = Pruned().eval(), torch.randn(8, 3, 16, 16)
    program, samples = tmp_path / "program.pt2", tmp_path / "samples.npz"
    torch.export.save(torch.export.export(network, (images[:1],)), program)
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
    assert sqnr(oracle, worker.run_all(run)[0]["logits"]) > 30
    assert "mixed_precision" not in file.notes, "no layer had to stay in float"
    assert file.notes["not_delegated"] == {}, "XNNPACK takes all of it"
    assert file.notes["largest_weight_error_quanta"] <= 0.5
