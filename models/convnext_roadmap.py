"""From a ResNet to a ConvNeXt, one change at a time: section 4.3 and Table 4.10 of the thesis (CVPR 2022, Figure 2).

The last row of the table, with separate downsampling layers, is ConvNeXt itself: ``convnext_tiny``. Where the text is
silent, the step keeps what the step before it had: the stem keeps its norm and its activation, a shortcut's 1x1
convolution its norm, and "fewer activations" and "fewer norms" concern the residual branch, of which the text speaks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from edge.models.convnext import EPSILON, PREPROCESSING
from edge.models.convnext_roadmap_keys import KEY_MAPS
from edge.models.layers import ChannelLayerNorm
from edge.models.registry import register_variant

BRANCH_SCALE = 0.2
"""Initial scale of the norm at a branch's end, so that a block starts near its shortcut. ResNets are trained from 0
(Goyal et al., 2017, section 5.1); a network that is not trained needs more, or the branch would hide its errors."""

Stem = Literal["resnet", "patchify"]
Shape = Literal["bottleneck", "inverted", "depthwise first"]


@dataclass(frozen=True)
class Config:
    """One row of the table.

    Attributes:
        width: of the first stage; each stage doubles it.
        depths: blocks of each stage.
        stem: a 7x7/s2 convolution and a 3x3/s2 maximum, or a 4x4/s4 convolution.
        shape: of a block (Figure 4.3). The bottleneck takes 4w channels through w and back; inverted, w through 4w,
            with the spatial convolution in the middle or in front.
        depthwise: whether the spatial convolution is depthwise.
        kernel: its side, odd.
        activation: everywhere.
        activations: all of a ResNet's, or the one between the last two 1x1 convolutions of a block.
        norms: one behind every convolution, or the one in front of a block's 1x1 convolutions.
        norm: BatchNorm, or LayerNorm over the channels.
        classes: of the classifier.
    """

    width: int = 64
    depths: tuple[int, ...] = (3, 4, 6, 3)
    stem: Stem = "resnet"
    shape: Shape = "bottleneck"
    depthwise: bool = False
    kernel: int = 3
    activation: Literal["relu", "gelu"] = "relu"
    activations: Literal["all", "one"] = "all"
    norms: Literal["all", "one"] = "all"
    norm: Literal["bn", "ln"] = "bn"
    classes: int = 1000

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each stage."""
        return tuple(self.width << stage for stage in range(len(self.depths)))

    def out_channels(self, width: int) -> int:
        """Of a block of this width."""
        return 4 * width if self.shape == "bottleneck" else width


def _norm(channels: int, config: Config) -> nn.BatchNorm2d | ChannelLayerNorm:
    return nn.BatchNorm2d(channels) if config.norm == "bn" else ChannelLayerNorm(channels, EPSILON)


def _activation(config: Config) -> nn.Module:
    return nn.ReLU() if config.activation == "relu" else nn.GELU()


class ConvNorm(nn.Sequential):
    """A convolution with half its kernel as padding; then its norm, initially of this scale, or a bias instead."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        config: Config,
        *,
        stride: int = 1,
        groups: int = 1,
        normalised: bool = True,
        scale: float = 1,
    ) -> None:
        super().__init__()
        padding = 0 if kernel == stride else kernel // 2
        self.conv = nn.Conv2d(*channels, kernel, stride, padding, groups=groups, bias=not normalised)
        if normalised:
            self.norm = _norm(channels[1], config)
            nn.init.constant_(self.norm.weight, scale)


class Block(nn.Module):
    """Three convolutions, of which the spatial one has the stride, and a shortcut with a 1x1 one if the shape changes.

    The branch is always convolution, activation, convolution, activation, convolution, so that a layer keeps its name
    from step to step.
    """

    def __init__(self, in_channels: int, width: int, stride: int, config: Config) -> None:
        super().__init__()
        out_channels, all_norms = config.out_channels(width), config.norms == "all"
        middle = width if config.shape == "bottleneck" else 4 * width
        channels = in_channels if config.shape == "depthwise first" else middle
        groups = channels if config.depthwise else 1
        spatial = ConvNorm((channels, channels), config.kernel, config, stride=stride, groups=groups)
        first = ConvNorm((in_channels, middle), 1, config, normalised=all_norms)
        last = ConvNorm((middle, out_channels), 1, config, normalised=all_norms, scale=BRANCH_SCALE)
        before, after = (spatial, first) if config.shape == "depthwise first" else (first, spatial)

        def activation_of_resnet() -> nn.Module:
            return _activation(config) if config.activations == "all" else nn.Identity()

        self.branch = nn.Sequential(before, activation_of_resnet(), after, _activation(config), last)
        changes = stride > 1 or in_channels != out_channels
        self.shortcut = ConvNorm((in_channels, out_channels), 1, config, stride=stride) if changes else nn.Identity()
        self.activation = activation_of_resnet()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        return self.activation(self.shortcut(x) + self.branch(x))


class Roadmap(nn.Module):
    """A network of the table."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        resnet = config.stem == "resnet"
        kernel, stride = (7, 2) if resnet else (4, 4)
        self.stem = ConvNorm((3, config.width), kernel, config, stride=stride)
        self.stem_activation = _activation(config)
        self.stem_pool = nn.MaxPool2d(3, 2, 1) if resnet else nn.Identity()
        channels, stages = config.width, []
        for index, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if index > 0 and block == 0 else 1
                blocks.append(Block(channels, width, stride, config))
                channels = config.out_channels(width)
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, config.classes)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, classes); H and W are multiples of 32."""
        x = self.stem_pool(self.stem_activation(self.stem(image)))
        return self.classifier(self.stages(x).mean((2, 3)))


RESNET_50 = Config()
STAGE_RATIO = replace(RESNET_50, depths=(3, 3, 9, 3))
PATCHIFY = replace(STAGE_RATIO, stem="patchify")
DEPTHWISE = replace(PATCHIFY, depthwise=True)
WIDTH = replace(DEPTHWISE, width=96)
INVERTED = replace(WIDTH, shape="inverted")
MOVED_UP = replace(INVERTED, shape="depthwise first")
KERNELS = {kernel: replace(MOVED_UP, kernel=kernel) for kernel in (5, 7, 9, 11)}
GELU = replace(KERNELS[7], activation="gelu")
FEWER_ACTIVATIONS = replace(GELU, activations="one")
FEWER_NORMS = replace(FEWER_ACTIVATIONS, norms="one")
LAYER_NORM = replace(FEWER_NORMS, norm="ln")

STEPS: dict[str, Config] = {
    "resnet50": RESNET_50,
    "stage_ratio": STAGE_RATIO,
    "patchify_stem": PATCHIFY,
    "depthwise_conv": DEPTHWISE,
    "increase_width": WIDTH,
    "inverted_dimensions": INVERTED,
    "move_up_depthwise_conv": MOVED_UP,
    **{f"kernel_{kernel}": config for kernel, config in KERNELS.items()},
    "gelu": GELU,
    "fewer_activations": FEWER_ACTIVATIONS,
    "fewer_norms": FEWER_NORMS,
    "layer_norm": LAYER_NORM,
}
"""In the table's order; after the kernels it goes on from 7."""


for _step, _config in STEPS.items():
    register_variant(
        f"convnext_roadmap_{_step}",
        Roadmap,
        _config,
        preprocessing=PREPROCESSING,
        key_maps=KEY_MAPS,
        source="ConvNeXt (CVPR 2022); thesis, Table 4.10",
    )
