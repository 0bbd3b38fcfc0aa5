"""The building blocks of the network families through Core ML: the evaluator knows what the converter makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge import targets, worker
from edge.backends import coreml
from edge.models.fasternet import Config, FasterNetPyramid
from edge.records import EmitJob, RunJob


class LayerNormBlock(nn.Module):
    """ConvNeXt: depthwise 7x7, LayerNorm and linear layers on NHWC, layer scale, shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(16, 16, 7, padding=3, groups=16), nn.LayerNorm(16, eps=1e-6)
        self.expand, self.project = nn.Linear(16, 64), nn.Linear(64, 16)
        self.scale = nn.Parameter(torch.linspace(0.1, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.project(F.gelu(self.expand(y)))).permute(0, 3, 1, 2)


class ResponseNormBlock(nn.Module):
    """ShiftwiseConv: squeeze and excitation, global response normalisation, channels taken by index."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.gamma, self.beta = nn.Parameter(torch.randn(16)), nn.Parameter(torch.randn(16))
        self.register_buffer("order", torch.randperm(16))

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, self.order] * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        y = x.permute(0, 2, 3, 1)
        energy = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
        return y * (energy / (energy.mean(-1, keepdim=True) + 1e-6)) * self.gamma + self.beta + y


class AttentionBlock(nn.Module):
    """EfficientFormerV2: attention at half resolution with talking heads and biases, values mixed locally."""

    def __init__(self) -> None:
        super().__init__()
        self.stride = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16)
        self.query, self.key, self.value = nn.Conv2d(16, 32, 1), nn.Conv2d(16, 32, 1), nn.Conv2d(16, 64, 1)
        self.local, self.project = nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 16, 1)
        self.before, self.after = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.biases = nn.Parameter(torch.randn(4, 16, 16))
        self.pool = nn.AvgPool2d(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        low = self.stride(x) + self.pool(x)
        query = self.query(low).flatten(2).reshape(1, 4, 8, 16).transpose(-1, -2)
        key, value = self.key(low).flatten(2).reshape(1, 4, 8, 16), self.value(low)
        weights = self.after(self.before(query @ key * 8**-0.5 + self.biases).softmax(-1))
        mixed = weights @ value.flatten(2).reshape(1, 4, 16, 16).transpose(-1, -2)
        y = mixed.transpose(2, 3).reshape(1, 64, 4, 4) + self.local(value)
        return x + self.project(F.gelu(F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)))


class FusionBlock(nn.Module):
    """HRNet: two resolutions exchanged; ADP-C: a pixel whose confidence is high keeps its first prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 1)
        self.first, self.second = nn.Conv2d(16, 5, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = F.relu(self.down(x))
        high = F.relu(x + F.interpolate(self.up(low), scale_factor=2, mode="nearest"))
        coarse = F.interpolate(self.first(low), size=(8, 8), mode="bilinear", align_corners=True)
        confident = coarse.softmax(1).amax(1, keepdim=True) > 0.45
        return torch.where(confident, coarse, self.second(high))


class PlainBlock(nn.Module):
    """VGG and ResNet: convolution, BatchNorm, max pooling, a linear head over BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24), nn.MaxPool2d(3, 2, 1)
        self.head, self.last = nn.Linear(24 * 9, 12), nn.BatchNorm1d(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.head(self.pool(F.relu(self.norm(self.conv(x)))).flatten(1)))


class PyramidBlock(nn.Module):
    """FasterNet's pyramid with LayerNorm over channels: several outputs, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(16, 3, 1)
        self.pyramid = FasterNetPyramid(Config(8, (1, 1, 1, 1), "relu", norm="ln", layer_scale=0.5))

    def forward(self, x: Tensor) -> Tensor:
        features = self.pyramid(F.interpolate(self.stem(x), scale_factor=8, mode="bilinear"))
        return torch.cat([f.mean((2, 3)) for f in features], 1)


TARGET = targets.load("iphone-12").model_dump(mode="json")
BLOCKS = [LayerNormBlock, ResponseNormBlock, AttentionBlock, FusionBlock, PlainBlock, PyramidBlock]


@pytest.mark.parametrize("deployment_target", ["iOS16", pytest.param("iOS18", marks=pytest.mark.slow)])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_block(block: type[nn.Module], deployment_target: str, tmp_path: Path, sqnr: Any) -> None:
    torch.manual_seed(0)
    network = block().eval()
    image = torch.randn(3, 16, 8, 8)
    torch.export.save(torch.export.export(network, (image[:1],)), tmp_path / "program.pt2")
    np.savez(tmp_path / "check.npz", image=image.numpy())
    with torch.no_grad():
        oracle = torch.cat([network.double()(row[None].double()) for row in image]).numpy()
    job = EmitJob(
        backend="edge.backends.coreml",
        model="block",
        program=tmp_path / "program.pt2",
        inputs=("image",),
        outputs=("features",),
        precisions=("fp32", "fp16"),
        calibration=tmp_path / "check.npz",
        check_inputs=tmp_path / "check.npz",
        target=TARGET | {"coreml": {"minimum_deployment_target": deployment_target}},
        folder=tmp_path,
    )
    prepared = coreml.prepare(job)
    for precision, gate in (("fp32", 100), ("fp16", 50)):
        (file,) = coreml.emit(job, prepared, precision)
        assert "mixed_precision" not in file.notes
        run = RunJob(
            file.runtime, tmp_path / file.file, file.inputs, file.outputs, job.check_inputs, tmp_path / "r.npz"
        )
        assert sqnr(oracle, worker.run_all(run)[0]["features"]) >= gate, precision
