"""Depthwise layers and layer norms of networks that nobody here defined become kernels of ours, and stay right."""

from __future__ import annotations

from collections import Counter

import torch
from network_rig import check
from torch import nn
from torch.nn import functional


class InvertedResidual(nn.Module):
    """A block as in MobileNetV2, with ReLU6 and a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(8, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24)
        self.project = nn.Conv2d(24, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(functional.relu6(self.depthwise(functional.relu6(self.expand(x)))))


class ConvNext(nn.Module):
    """The beginning of a block as in ConvNeXt, and a strip of a large kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.strip = nn.Conv2d(8, 8, (3, 15), padding=(1, 7), groups=8, bias=False)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.expand = nn.Linear(8, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(x) + functional.relu(self.strip(x) + x)
        return functional.gelu(self.expand(self.norm(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


class Refused(nn.Module):
    """Depthwise layers that no template takes."""

    def __init__(self) -> None:
        super().__init__()
        self.several = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.dilated = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16)
        self.groups = nn.Conv2d(16, 16, 3, padding=1, groups=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.groups(self.dilated(self.several(x)))


def test_a_mobilenet_block_is_three_kernels_with_its_activations_inside() -> None:
    done = check(InvertedResidual(), {"pointwise": 2, "depthwise": 1})
    assert not done.refusals
    names = " ".join(variable.name_hint for variable in done.module.get_global_vars())
    assert "depthwise_3x3_s2" in names
    assert names.count("relu6") == 2


def test_a_convnext_block_and_a_strip_are_kernels_with_their_sums_inside() -> None:
    done = check(ConvNext(), {"depthwise": 1, "large_kernel": 1, "layer_norm": 1, "pointwise": 1})
    names = " ".join(variable.name_hint for variable in done.module.get_global_vars())
    assert "shortcut_before" in names
    assert not done.refusals


def test_what_is_refused_says_why_and_is_still_right() -> None:
    done = check(Refused(), {})
    assert done.refusals == Counter(
        {
            "conv2d: a depthwise convolution with several results for each channel": 1,
            "conv2d: a depthwise convolution with dilation": 1,
            "conv2d: groups of several channels": 1,
        }
    )
