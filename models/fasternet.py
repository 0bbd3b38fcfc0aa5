"""FasterNet: "Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks" (CVPR 2023), Figure 4 and Table 8.

A 4x4/s4 embedding, four stages of blocks with 2x2/s2 merging between them, and a three-layer head. A block is a
partial convolution (PConv) over the first ``channels / n_div`` channels and two pointwise convolutions, with a
shortcut. Normalisation and activation stand only between the two pointwise layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from edge.calibration.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edge.models.fasternet_keys import KEY_MAPS
from edge.models.layers import ChannelLayerNorm
from edge.models.registry import register_variant

Norm = Literal["bn", "ln"]
Activation = Literal["gelu", "relu"]


def _norm(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "bn" else ChannelLayerNorm(channels)


def _activation(kind: Activation) -> nn.Module:
    return nn.GELU() if kind == "gelu" else nn.ReLU()


class Downsample(nn.Module):
    """Embedding (4x4/s4) or merging (2x2/s2): a convolution whose stride is its kernel, then the norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, stride, stride, bias=False)
        self.norm = _norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        return self.norm(self.conv(x))


class PartialConv(nn.Module):
    """PConv, equation (4): a 3x3 convolution of the first ``channels // n_div`` channels; the others pass through."""

    def __init__(self, channels: int, n_div: int) -> None:
        super().__init__()
        self.convolved = channels // n_div
        self.conv = nn.Conv2d(self.convolved, self.convolved, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        first, rest = torch.split(x, [self.convolved, x.shape[1] - self.convolved], dim=1)
        return torch.cat([self.conv(first), rest], dim=1)


class Block(nn.Module):
    """PConv, pointwise C to rC, norm, activation, pointwise rC to C, plus the block's input."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        hidden = channels * config.mlp_ratio
        self.partial = PartialConv(channels, config.n_div)
        self.expand = nn.Conv2d(channels, hidden, 1, bias=False)
        self.norm = _norm(config.norm, hidden)
        self.activation = _activation(config.activation)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)
        self.layer_scale = (
            nn.Parameter(torch.full((channels,), config.layer_scale)) if config.layer_scale is not None else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        y = self.project(self.activation(self.norm(self.expand(self.partial(x)))))
        if self.layer_scale is not None:
            y = y * self.layer_scale.reshape(1, -1, 1, 1)
        return x + y


@dataclass(frozen=True)
class Config:
    """Table 8, and the choices of Table 5.

    Attributes:
        width: channels of the first stage; each merging doubles them.
        depths: blocks of each stage.
        activation: GELU (erf form) for the small variants, ReLU for the others.
        n_div: the inverse of the partial ratio r: 2, 4 or 8.
        norm: "bn", or "ln" over the channels (Table 5).
        mlp_ratio: expansion of the pointwise pair.
        layer_scale: initial value of the per-channel scale on the block's branch, None for none.
        head_width: channels of the 1x1 convolution in the head.
        classes: of the classifier.
    """

    width: int
    depths: tuple[int, int, int, int]
    activation: Activation
    n_div: int = 4
    norm: Norm = "bn"
    mlp_ratio: int = 2
    layer_scale: float | None = None
    head_width: int = 1280
    classes: int = 1000

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm) or self.activation not in get_args(Activation):
            known = ", ".join((*get_args(Norm), *get_args(Activation)))
            raise ValueError(f"norm={self.norm!r}, activation={self.activation!r}: the choices are {known}")
        if self.n_div < 1 or self.width % self.n_div:
            raise ValueError(f"n_div={self.n_div} does not divide the width {self.width}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each stage."""
        return tuple(self.width << stage for stage in range(len(self.depths)))


class Trunk(nn.Module):
    """Embedding, stages and mergings, shared by the classifier and the pyramid backbone."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = config.channels
        self.config = config
        self.embedding = Downsample(3, widths[0], 4, config.norm)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(channels, config) for _ in range(depth)))
            for channels, depth in zip(widths, config.depths, strict=True)
        )
        self.mergings = nn.ModuleList(Downsample(narrow, wide, 2, config.norm) for narrow, wide in pairwise(widths))

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to the four stages' outputs: (N, c, H/4, W/4) … (N, 8c, H/32, W/32)."""
        features = [self.stages[0](self.embedding(image))]
        for merging, stage in zip(self.mergings, list(self.stages)[1:], strict=True):
            features.append(stage(merging(features[-1])))
        return features


class FasterNet(Trunk):
    """The classifier."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Conv2d(config.channels[-1], config.head_width, 1, bias=False)
        self.head_activation = _activation(config.activation)
        self.classifier = nn.Linear(config.head_width, config.classes)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, classes)."""
        pooled = self.pool(self.pyramid(image)[-1])
        return self.classifier(self.head_activation(self.head(pooled)).flatten(1))


class FasterNetPyramid(Trunk):
    """The backbone for detection: a norm on the output of every stage, no head."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.norms = nn.ModuleList(_norm(config.norm, channels) for channels in config.channels)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to four feature maps, strides 4, 8, 16 and 32."""
        return tuple(norm(x) for norm, x in zip(self.norms, self.pyramid(image), strict=True))


VARIANTS: dict[str, Config] = {
    "t0": Config(40, (1, 2, 8, 2), "gelu"),
    "t1": Config(64, (1, 2, 8, 2), "gelu"),
    "t2": Config(96, (1, 2, 8, 2), "relu"),
    "s": Config(128, (1, 2, 13, 2), "relu"),
    "m": Config(144, (3, 4, 18, 3), "relu"),
    "l": Config(192, (3, 4, 18, 3), "relu"),
}

PREPROCESSING = Preprocessing(size=224, crop=0.9, mean=IMAGENET_MEAN, std=IMAGENET_STD)


SOURCE = "FasterNet (CVPR 2023), Table 8"

for _name, _config in VARIANTS.items():
    register_variant(
        f"fasternet_{_name}", FasterNet, _config, preprocessing=PREPROCESSING, key_maps=KEY_MAPS, source=SOURCE
    )
    register_variant(
        f"fasternet_{_name}_pyramid",
        FasterNetPyramid,
        _config,
        outputs=tuple(f"features_{stage}" for stage in range(4)),
        preprocessing=PREPROCESSING,
        key_maps=KEY_MAPS,
        source=f"{SOURCE}; norms on the four stages for detection",
    )
