"""Crosses of strips and response norms are found in any network's graph, and what surrounds them moves no data."""

from __future__ import annotations

import pytest
import torch
from network_rig import check
from shiftwise_tables import draw
from torch import Tensor, nn

from edge.models.layers import ChannelLayerNorm
from edge.models.shiftwise import Block, Config


def depthwise(kernel: tuple[int, int], channels: int = 8, *, bias: bool = True) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=bias)


class Cross(nn.Module):
    """Two strips of anybody's network, each with a bias, and what is done with their sum."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return (self.first(x) + self.second(x)) * 2


class TwoImages(Cross):
    """Strips of different images are no cross."""

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x * 3)


class ReadTwice(Cross):
    """One strip's own result is needed beside the sum."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(x)
        return first, first + self.second(x)


@pytest.mark.parametrize(
    ("network", "kernels"),
    [
        (Cross(depthwise((3, 15)), depthwise((15, 3))), {"shiftwise": 1}),
        (Cross(depthwise((15, 3)), depthwise((3, 9), bias=False)), {"shiftwise": 1}),
        (TwoImages(depthwise((3, 15)), depthwise((15, 3))), {"large_kernel": 2}),
        (ReadTwice(depthwise((3, 15)), depthwise((15, 3))), {"large_kernel": 2}),
        (Cross(depthwise((3, 5)), depthwise((5, 3))), {"depthwise": 2}),
        (Cross(depthwise((5, 15)), depthwise((15, 3))), {"large_kernel": 2}),
        (Cross(depthwise((3, 15)), depthwise((3, 15))), {"large_kernel": 2}),
    ],
    ids=["a cross", "one bias", "two images", "read twice", "small", "five rows", "the same strip twice"],
)
def test_a_cross_is_two_strips_of_one_image(network: nn.Module, kernels: dict[str, int]) -> None:
    assert not check(network, kernels).refusals


@torch.no_grad()
def test_channels_with_the_middle_tap_alone_are_ghosts() -> None:
    cross = Cross(depthwise((3, 15)), depthwise((15, 3)))
    for strip in (cross.first, cross.second):
        strip.weight[[1, 6]] = 0
    cross.first.weight[[1, 6], 0, 1, 7] = 1
    (kernel,) = (v.name_hint for v in check(cross, {"shiftwise": 1}).module.get_global_vars() if v.name_hint != "main")
    assert "ghosts_2" in kernel


class ResponseNorm(nn.Module):
    """As ConvNeXt V2 has it, with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        norm = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        y = self.gamma * (x * (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + x
        return y.permute(0, 3, 1, 2)


class AlongRows(ResponseNorm):
    """A norm over the columns only is another operator."""

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.norm(x, p=2, dim=(3,), keepdim=True)
        return x * (norm / (norm.mean(dim=1, keepdim=True) + 1e-6))


class Image(nn.Module):
    """A network that begins with a convolution."""

    def __init__(self, rest: nn.Module) -> None:
        super().__init__()
        self.conv, self.rest = nn.Conv2d(8, 8, 1), rest

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.conv(x))


@pytest.mark.parametrize(
    ("network", "kernels"),
    [(ResponseNorm(), {"pointwise": 1, "response_norm": 1}), (AlongRows(), {"pointwise": 1})],
    ids=lambda value: type(value).__name__,
)
def test_response_norms_of_convnext_v2(network: nn.Module, kernels: dict[str, int]) -> None:
    check(Image(network), kernels)


class ChannelsFirst(nn.Module):
    """LayerNorm over the channels of an NCHW image, twice, with a shortcut around the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = ChannelLayerNorm(8), ChannelLayerNorm(8)
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(self.conv(x)))
        return x + self.conv(self.second(x))


def test_permutations_around_layer_norms_move_nothing() -> None:
    done = check(ChannelsFirst(), {"pointwise": 2, "layer_norm": 2})
    text = done.module["main"].script(show_meta=False)
    assert text.count("R.permute_dims") == 2, "the image on its way in, and the result on its way out"


@torch.no_grad()
def test_a_merged_block_is_kernels_of_ours_but_for_means_and_gates() -> None:
    block = Block(draw(8, 19), Config((), ())).eval()
    for parameter in block.parameters():
        parameter.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(0))
    check(Image(block.reparameterize()), {"pointwise": 5, "shiftwise": 1, "response_norm": 1})
