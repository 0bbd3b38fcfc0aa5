"""EfficientFormerV2: "Rethinking Vision Transformers for MobileNet Size and Speed" (ICCV 2023), Figure 2 and Table 8.

A two-convolution stem and four stages, each a row of inverted-bottleneck feed-forward blocks with a depthwise
convolution in the middle. The last blocks of stages 3 and 4 have attention before the feed-forward network: with
talking heads, a learned bias for every offset between two positions, and a depthwise convolution of the values beside
it. Stage 3 attends at half its resolution (stride attention), and attention joins the convolution on the way to stage
4. Two classifiers, one of them trained by distillation, are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor, nn

from edge.calibration.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edge.errors import InputError
from edge.models.efficientformerv2_keys import KEY_MAPS
from edge.models.registry import register_variant

HEADS = 8
VALUE_RATIO = 4
"""Channels of a value for each channel of a key."""
KEY_CHANNELS, DOWNSAMPLING_KEY_CHANNELS = 32, 16
INITIAL_LAYER_SCALE = 1e-5


class ConvNorm(nn.Module):
    """A convolution with a bias that keeps or divides the resolution, then BatchNorm."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, depthwise: bool = False
    ) -> None:
        super().__init__()
        groups = in_channels if depthwise else 1
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        return self.norm(self.conv(x))


class FeedForward(nn.Module):
    """The unified feed-forward network of Figure 2 (c): pointwise C to eC, depthwise 3x3, pointwise eC to C."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = ConvNorm(channels, hidden)
        self.mix = ConvNorm(hidden, hidden, 3, depthwise=True)
        self.project = ConvNorm(hidden, channels)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.project(self.activation(self.mix(self.activation(self.expand(x)))))


def _offsets(queries: int, keys: int) -> Tensor:
    """For every query and key position on square grids of these sides, the number of their offset, (Q², K²).

    An offset is the distance in rows and in columns, in the keys' steps; offsets are numbered in the order in which
    the authors' loops meet them first, which decides what their attention biases mean.
    """
    step = keys // queries
    numbers: dict[tuple[int, int], int] = {}
    rows = [
        [
            numbers.setdefault((abs(step * query[0] - key[0]), abs(step * query[1] - key[1])), len(numbers))
            for key in product(range(keys), repeat=2)
        ]
        for query in product(range(queries), repeat=2)
    ]
    return torch.tensor(rows)


class AttentionBias(nn.Module):
    """A learned value for each head and each offset between a query's position and a key's."""

    offsets: Tensor

    def __init__(self, queries: int, keys: int) -> None:
        super().__init__()
        with torch.device("cpu"):
            offsets = _offsets(queries, keys)
            count = int(offsets.max()) + 1
        self.values = nn.Parameter(torch.zeros(HEADS, count))
        self.register_buffer("offsets", offsets.to(self.values.device), persistent=False)

    def forward(self) -> Tensor:
        """(heads, Q², K²)."""
        return self.values[:, self.offsets]


def _heads(x: Tensor) -> Tensor:
    """(N, heads · d, H, W) to (N, heads, d, H · W)."""
    return x.flatten(2).reshape(x.shape[0], HEADS, x.shape[1] // HEADS, -1)


class Attention(nn.Module):
    """Attention with talking heads, Figure 2 (d), or with stride attention, Figure 2 (e).

    Args:
        channels: C.
        side: positions in a row of the feature map.
        stride: attends at ``side / stride`` and resizes the result bilinearly.
    """

    def __init__(self, channels: int, side: int, stride: int) -> None:
        super().__init__()
        keys, values = HEADS * KEY_CHANNELS, HEADS * KEY_CHANNELS * VALUE_RATIO
        self.scale = KEY_CHANNELS**-0.5
        self.reduce = ConvNorm(channels, channels, 3, stride, depthwise=True) if stride > 1 else nn.Identity()
        self.query, self.key = ConvNorm(channels, keys), ConvNorm(channels, keys)
        self.value = ConvNorm(channels, values)
        self.local = ConvNorm(values, values, 3, depthwise=True)
        self.bias = AttentionBias(side // stride, side // stride)
        self.talk_before, self.talk_after = nn.Conv2d(HEADS, HEADS, 1), nn.Conv2d(HEADS, HEADS, 1)
        self.enlarge = nn.Upsample(scale_factor=stride, mode="bilinear") if stride > 1 else nn.Identity()
        self.activation = nn.GELU()
        self.project = ConvNorm(values, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = self.reduce(x)
        query, key, value = self.query(x), self.key(x), self.value(x)
        scores = _heads(query).transpose(2, 3) @ _heads(key) * self.scale + self.bias()
        weights = self.talk_after(self.talk_before(scores).softmax(-1))
        attended = (weights @ _heads(value).transpose(2, 3)).transpose(2, 3).reshape(value.shape)
        return self.project(self.activation(self.enlarge(attended + self.local(value))))


class AttentionDownsample(nn.Module):
    """Attention that halves the resolution, Figure 2 (f): fewer queries than keys, made locally and by sampling.

    Args:
        in_channels, out_channels: C and C'.
        side: positions in a row of the input.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        super().__init__()
        keys = HEADS * DOWNSAMPLING_KEY_CHANNELS
        values = keys * VALUE_RATIO
        self.scale = DOWNSAMPLING_KEY_CHANNELS**-0.5
        self.query_local = nn.Conv2d(in_channels, in_channels, 3, 2, 1, groups=in_channels)
        self.query_sample = nn.AvgPool2d(1, 2)
        self.query, self.key = ConvNorm(in_channels, keys), ConvNorm(in_channels, keys)
        self.value = ConvNorm(in_channels, values)
        self.local = ConvNorm(values, values, 3, 2, depthwise=True)
        self.bias = AttentionBias(side // 2, side)
        self.activation = nn.GELU()
        self.project = ConvNorm(values, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / 2, W / 2)."""
        query = self.query(self.query_local(x) + self.query_sample(x))
        key, value = self.key(x), self.value(x)
        weights = (_heads(query).transpose(2, 3) @ _heads(key) * self.scale + self.bias()).softmax(-1)
        local = self.local(value)
        attended = (weights @ _heads(value).transpose(2, 3)).transpose(2, 3).reshape(local.shape)
        return self.project(self.activation(attended + local))


class DualPathDownsample(nn.Module):
    """A strided convolution and strided attention, added; between stages 3 and 4."""

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        super().__init__()
        self.direct = ConvNorm(in_channels, out_channels, 3, 2)
        self.attention = AttentionDownsample(in_channels, out_channels, side)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / 2, W / 2)."""
        return self.attention(x) + self.direct(x)


class ScaledResidual(nn.Module):
    """X plus a branch of x, scaled for each channel."""

    def __init__(self, channels: int, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.layer_scale = nn.Parameter(torch.full((channels,), INITIAL_LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.branch(x) * self.layer_scale.reshape(1, -1, 1, 1)


class Block(nn.Sequential):
    """A feed-forward network, in the last blocks of a stage with attention before it, each with its shortcut."""

    def __init__(self, channels: int, expansion: int, attention: Attention | None) -> None:
        super().__init__()
        if attention is not None:
            self.attention = ScaledResidual(channels, attention)
        self.feed_forward = ScaledResidual(channels, FeedForward(channels, expansion))


@dataclass(frozen=True)
class Config:
    """Table 8, in the true order of the expansion ratios.

    Attributes:
        widths: channels of each stage.
        expansions: of every block's feed-forward network, stage by stage.
        attention: how many blocks have it at the end of stages 3 and 4.
        distilled: with the distillation head beside the classifier; inference averages both.
        size: height and width of the image, a multiple of 32. Attention biases belong to it.
        classes: of the classifiers.
    """

    widths: tuple[int, int, int, int]
    expansions: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    attention: tuple[int, int]
    distilled: bool = True
    size: int = 224
    classes: int = 1000

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 32:
            raise ValueError(f"size={self.size} is not a multiple of 32, so that the last stage has no whole positions")

    def side(self, stage: int) -> int:
        """Positions in a row of a stage's feature map, counted from 0."""
        return self.size >> (stage + 2)


class EfficientFormerV2(nn.Module):
    """The classifier, for images of the size it was built for."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = nn.Sequential(
            ConvNorm(3, widths[0] // 2, 3, 2), nn.GELU(), ConvNorm(widths[0] // 2, widths[0], 3, 2), nn.GELU()
        )
        self.stages = nn.ModuleList(self._stage(stage) for stage in range(4))
        *narrow, last = pairwise(widths)
        self.downsamples = nn.ModuleList(
            [*(ConvNorm(*pair, 3, 2) for pair in narrow), DualPathDownsample(*last, config.side(2))]
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.classifier = nn.Linear(widths[-1], config.classes)
        self.distillation_classifier = nn.Linear(widths[-1], config.classes) if config.distilled else None

    def _stage(self, stage: int) -> nn.Sequential:
        channels, expansions = self.config.widths[stage], self.config.expansions[stage]
        with_attention = (0, 0, *self.config.attention)[stage]
        stride = 2 if stage == 2 else 1

        def attention(block: int) -> Attention | None:
            attends = block >= len(expansions) - with_attention
            return Attention(channels, self.config.side(stage), stride) if attends else None

        return nn.Sequential(*(Block(channels, ratio, attention(block)) for block, ratio in enumerate(expansions)))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, size, size) to logits (N, classes).

        Raises:
            InputError: an image of another size.
        """
        size = self.config.size
        if image.shape[-2:] != (size, size):
            raise InputError(
                f"the image has {image.shape[-2]}×{image.shape[-1]} pixels, but the attention biases belong to the "
                f"resolution the network was built for, {size}×{size}",
                stage="define",
                next_step=f"build it with size={image.shape[-1]} and train it there, or resize the image",
            )
        x = self.stages[0](self.stem(image))
        for downsample, stage in zip(self.downsamples, list(self.stages)[1:], strict=True):
            x = stage(downsample(x))
        features = self.norm(x).flatten(2).mean(2)
        if self.distillation_classifier is None:
            return self.classifier(features)
        return (self.classifier(features) + self.distillation_classifier(features)) / 2


def _expansions(depths: tuple[int, int], stage_3: tuple[int, ...], stage_4: tuple[int, ...]) -> tuple:
    return ((4,) * depths[0], (4,) * depths[1], stage_3, stage_4)


VARIANTS: dict[str, Config] = {
    "s0": Config((32, 48, 96, 176), _expansions((2, 2), (4, 3, 3, 3, 4, 4), (4, 3, 3, 4)), (2, 2)),
    "s1": Config((32, 48, 120, 224), _expansions((3, 3), (4, 4, 3, 3, 3, 3, 4, 4, 4), (4, 4, 3, 3, 4, 4)), (2, 2)),
    "s2": Config(
        (32, 64, 144, 288),
        _expansions((4, 4), (4, 4, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4), (4, 4, 3, 3, 3, 3, 4, 4)),
        (4, 4),
    ),
    "l": Config(
        (40, 80, 192, 384),
        _expansions((5, 5), (4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4), (4, 4, 4, 3, 3, 3, 3, 4, 4, 4)),
        (6, 6),
    ),
}

PREPROCESSING = Preprocessing(size=224, crop=0.95, mean=IMAGENET_MEAN, std=IMAGENET_STD)


for _name, _config in VARIANTS.items():
    register_variant(
        f"efficientformerv2_{_name}",
        EfficientFormerV2,
        _config,
        preprocessing=PREPROCESSING,
        key_maps=KEY_MAPS,
        source="EfficientFormerV2 (ICCV 2023), Table 8",
    )
