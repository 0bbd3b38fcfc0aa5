"""ConvNeXt: "A ConvNet for the 2020s" (CVPR 2022; the thesis' chapter 4), Figure 4.4 and Table 4.8.

A 4x4/s4 embedding, four stages of blocks with 2x2/s2 merging between them, and a linear classifier. A block is a
depthwise 7x7 convolution, a LayerNorm over the channels, two linear layers with a GELU between them at each position,
a scale per channel and a shortcut. A LayerNorm stands wherever the resolution changes: after the embedding, before
each merging, after the final average.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from edge.calibration.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edge.models.convnext_keys import ISOTROPIC_KEY_MAPS, KEY_MAPS
from edge.models.layers import ChannelLayerNorm
from edge.models.registry import register_variant

EPSILON = 1e-6
"""Of every LayerNorm."""


@dataclass(frozen=True)
class Config:
    """Section 4.4.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage.
        layer_scale: initial value of the per-channel scale on each block's branch, None for none.
        kernel: side of the depthwise convolutions, odd.
        classes: of the classifier.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    layer_scale: float | None = 1e-6
    kernel: int = 7
    classes: int = 1000

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths):
            raise ValueError(f"widths={self.widths} and depths={self.depths} are not of the same stages")


class Block(nn.Module):
    """Depthwise convolution, LayerNorm, C to 4C, GELU, 4C to C, scale, plus the block's input (Figure 4.4)."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, config.kernel, padding=config.kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.expand = nn.Linear(channels, 4 * channels)
        self.activation = nn.GELU()
        self.project = nn.Linear(4 * channels, channels)
        self.layer_scale = (
            nn.Parameter(torch.full((channels,), config.layer_scale)) if config.layer_scale is not None else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; from the norm to the scale in (N, H, W, C), as the authors compute it."""
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.project(self.activation(self.expand(self.norm(y))))
        if self.layer_scale is not None:
            y = self.layer_scale * y
        return x + y.permute(0, 3, 1, 2)


class Merging(nn.Module):
    """LayerNorm over the channels, then a 2x2/s2 convolution: half the resolution, and the next stage's channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = ChannelLayerNorm(in_channels, EPSILON)
        self.conv = nn.Conv2d(in_channels, out_channels, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / 2, W / 2)."""
        return self.conv(self.norm(x))


def _stage(channels: int, depth: int, config: Config) -> nn.Sequential:
    return nn.Sequential(*(Block(channels, config) for _ in range(depth)))


class Head(nn.Module):
    """Average over all positions, LayerNorm, classifier."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, classes)."""
        return self.classifier(self.norm(x.mean((2, 3))))


class ConvNeXt(nn.Module):
    """The hierarchical network."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = config.widths
        self.config = config
        self.embedding = nn.Conv2d(3, widths[0], 4, 4)
        self.norm = ChannelLayerNorm(widths[0], EPSILON)
        self.stages = nn.ModuleList(_stage(*stage, config) for stage in zip(widths, config.depths, strict=True))
        self.mergings = nn.ModuleList(Merging(narrow, wide) for narrow, wide in pairwise(widths))
        self.head = Head(widths[-1], config.classes)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, classes); H and W are multiples of 32."""
        x = self.stages[0](self.norm(self.embedding(image)))
        for merging, stage in zip(self.mergings, list(self.stages)[1:], strict=True):
            x = stage(merging(x))
        return self.head(x)


class IsotropicConvNeXt(nn.Module):
    """The isotropic network (section 4.4.3, after ViT): one stage at 1/16 of the resolution, no merging."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        (width,), (depth,) = config.widths, config.depths
        self.config = config
        self.embedding = nn.Conv2d(3, width, 16, 16)
        self.blocks = _stage(width, depth, config)
        self.head = Head(width, config.classes)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, classes); H and W are multiples of 16."""
        return self.head(self.blocks(self.embedding(image)))


VARIANTS: dict[str, Config] = {
    "tiny": Config((96, 192, 384, 768), (3, 3, 9, 3)),
    "small": Config((96, 192, 384, 768), (3, 3, 27, 3)),
    "base": Config((128, 256, 512, 1024), (3, 3, 27, 3)),
    "large": Config((192, 384, 768, 1536), (3, 3, 27, 3)),
    "xlarge": Config((256, 512, 1024, 2048), (3, 3, 27, 3)),
}

ISOTROPIC_VARIANTS: dict[str, Config] = {
    "s": Config((384,), (18,), layer_scale=None),
    "b": Config((768,), (18,), layer_scale=None),
    "l": Config((1024,), (36,)),
}

PREPROCESSING = Preprocessing(size=224, crop=0.875, mean=IMAGENET_MEAN, std=IMAGENET_STD)
PREPROCESSING_384 = Preprocessing(size=384, crop=1.0, mean=IMAGENET_MEAN, std=IMAGENET_STD)


for _name, _config in VARIANTS.items():
    for _suffix, _preprocessing in {"": PREPROCESSING, "_384": PREPROCESSING_384}.items():
        register_variant(
            f"convnext_{_name}{_suffix}",
            ConvNeXt,
            _config,
            preprocessing=_preprocessing,
            key_maps=KEY_MAPS,
            source="ConvNeXt (CVPR 2022), section 4.4 and Table 4.8",
        )

for _name, _config in ISOTROPIC_VARIANTS.items():
    register_variant(
        f"convnext_iso_{_name}",
        IsotropicConvNeXt,
        _config,
        preprocessing=PREPROCESSING,
        key_maps=ISOTROPIC_KEY_MAPS,
        source="ConvNeXt (CVPR 2022), isotropic, Table 4.2",
    )
