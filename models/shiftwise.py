"""Shift-wise networks: "ShiftwiseConv: Small Convolutional Kernel with Large Kernel Effect" (CVPR 2025).

A stem of two 3x3/s2 convolutions, four stages of blocks with 3x3/s2 convolutions between them, each followed by a
LayerNorm over the channels, and a linear head. A block is the shift-wise operator with a BatchNorm, squeeze and
excitation, and a pointwise pair with global response normalisation (ConvNeXt V2, arXiv:2301.00808), all on a branch
with a scale for each channel.

These are the networks as they are trained, with parallel paths (``paths=1`` is the authors' merged form).
``Block.reparameterize`` gives what is exported, see ``shiftwise_merged``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn

from edge.calibration.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edge.models.layers import ChannelLayerNorm
from edge.models.registry import register_variant
from edge.models.shift_add import offsets, spatial_sum
from edge.models.shiftwise_keys import KEY_MAPS
from edge.models.shiftwise_merged import Form, Merged
from edge.models.shiftwise_tables import SIDE, Tables, published

EPSILON = 1e-6
"""Of the LayerNorms."""


class ShiftwiseConv(nn.Module):
    """The shift-wise operator, Section 3: parallel paths of small filters, their sum shifted and added up.

    The filters' results y of the *rep* channels are added along the rows, along the columns and where they are, each
    sum with a BatchNorm of its own; the other channels, the *ghosts*, pass. The result has them behind the rep
    channels.

    Attributes:
        tables: what the indexes are made of.
        rep: the channels that are convolved.
        ghosts: the others.
        across: (places, groups, rep channels), the filters that are added at each place along the rows.
        down: the same along the columns.
        middle: (1, groups, rep channels), those that are added where they are.
    """

    rep: Tensor
    ghosts: Tensor
    across: Tensor
    down: Tensor
    middle: Tensor

    def __init__(self, tables: Tables, paths: int) -> None:
        super().__init__()
        rep, count = len(tables.rep), tables.filters
        self.tables = tables
        self.paths = nn.ModuleList(
            nn.Conv2d(rep, rep * count, SIDE, padding=SIDE - 1, groups=rep, bias=False) for _ in range(paths)
        )
        self.norm_across, self.norm_down, self.norm_middle = (nn.BatchNorm2d(rep) for _ in range(3))
        first = torch.arange(rep) * count
        across, down = (table.argsort(2).permute(2, 0, 1) + first for table in (tables.across, tables.down))
        indexes = {"rep": tables.rep, "ghosts": tables.ghosts, "across": across, "down": down}
        for name, index in {**indexes, "middle": (tables.identity + first)[None]}.items():
            self.register_buffer(name, torch.as_tensor(index), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        kept = x[:, self.rep]
        # One image at a time: there are n results of every value, and a batch of them leaves every cache.
        sums = [torch.cat(parts) for parts in zip(*(self._sums(image[None]) for image in kept), strict=True)]
        across, down, middle = (
            norm(part) for norm, part in zip((self.norm_across, self.norm_down, self.norm_middle), sums, strict=True)
        )
        return torch.cat([across + down + middle + kept, x[:, self.ghosts]], dim=1)

    def _sums(self, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sums along the rows, along the columns and in the middle; each (N, rep channels, H, W)."""
        y, size = reduce(torch.add, (path(kept) for path in self.paths)), (kept.shape[2], kept.shape[3])
        along_rows, along_columns = offsets(self.tables)
        return (
            spatial_sum(y, self.across, size, along_rows),
            spatial_sum(y, self.down, size, along_columns),
            spatial_sum(y, self.middle, size, [(1, 1)]),
        )


class SqueezeExcitation(nn.Module):
    """Channels weighted by a sigmoid of what their means say (arXiv:1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class ResponseNorm(nn.Module):
    """Global response normalisation with the channels last (arXiv:2301.00808, algorithm 1)."""

    epsilon = 1e-6

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape."""
        norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        relative = norm / (norm.mean(-1, keepdim=True) + self.epsilon)
        return (self.scale * relative + 1) * x + self.shift


class Block(nn.Module):
    """Shift-wise operator, squeeze and excitation, pointwise C to 4C and back; scaled, plus the block's input."""

    def __init__(self, tables: Tables, config: Config) -> None:
        super().__init__()
        channels = tables.channels
        self.form = config.form
        self.shiftwise = ShiftwiseConv(tables, config.paths)
        self.norm = nn.BatchNorm2d(channels)
        self.excitation = SqueezeExcitation(channels)
        self.expand = nn.Linear(channels, 4 * channels)
        self.activation = nn.GELU()
        self.response_norm = ResponseNorm(4 * channels)
        self.project = nn.Linear(4 * channels, channels, bias=False)
        self.project_norm = nn.BatchNorm2d(channels)
        self.layer_scale = nn.Parameter(torch.full((channels,), config.layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        y = self.excitation(self.norm(self.shiftwise(x)))
        y = self.project(self.response_norm(self.activation(self.expand(y.permute(0, 2, 3, 1)))))
        return x + self.layer_scale.reshape(1, -1, 1, 1) * self.project_norm(y.permute(0, 3, 1, 2))

    def reparameterize(self) -> nn.Module:
        """The same function for export: paths and norms folded, channels in their own order."""
        with torch.no_grad():
            return Merged(self, self.form)


@dataclass(frozen=True)
class Config:
    """Table 8 of the supplement.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage.
        kernels: K of each stage; the small filters have 3 x 3.
        paths: parallel convolutions whose results are summed; 1 for the authors' merged form.
        layer_scale: initial value of the scale on a block's branch.
        form: what the blocks are exported as.
        classes: of the classifier.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...] = (51, 49, 47, 13)
    paths: int = 2
    layer_scale: float = 1e-6
    form: Form = "strips"
    classes: int = 1000


class Shiftwise(nn.Module):
    """The classifier."""

    def __init__(self, config: Config, tables: Callable[[int, int], Tables] = published) -> None:
        """Build the network.

        Args:
            config: its sizes.
            tables: for the channels and the kernel of each stage.
        """
        super().__init__()
        widths = config.widths
        self.config = config

        def downsample(narrow: int, wide: int) -> list[nn.Module]:
            return [nn.Conv2d(narrow, wide, 3, 2, 1), ChannelLayerNorm(wide, EPSILON)]

        self.embedding = nn.Sequential(
            *downsample(3, widths[0] // 2), nn.GELU(), *downsample(widths[0] // 2, widths[0])
        )
        self.mergings = nn.ModuleList(nn.Sequential(*downsample(*pair)) for pair in pairwise(widths))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(tables(width, kernel), config) for _ in range(depth)))
            for width, kernel, depth in zip(widths, config.kernels, config.depths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], EPSILON)
        self.classifier = nn.Linear(widths[-1], config.classes)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, classes)."""
        x = self.stages[0](self.embedding(image))
        for merging, stage in zip(self.mergings, list(self.stages)[1:], strict=True):
            x = stage(merging(x))
        return self.classifier(self.norm(x.mean((2, 3))))


VARIANTS: dict[str, Config] = {
    "tiny": Config((80, 160, 320, 640), (3, 3, 18, 3)),
    "small": Config((96, 192, 384, 768), (3, 3, 27, 3)),
}

PREPROCESSING = Preprocessing(size=224, crop=0.875, mean=IMAGENET_MEAN, std=IMAGENET_STD)


for _name, _config in VARIANTS.items():
    register_variant(
        f"sw_{_name}",
        Shiftwise,
        _config,
        preprocessing=PREPROCESSING,
        key_maps=KEY_MAPS,
        source="ShiftwiseConv (CVPR 2025), supplement, Table 8",
    )
