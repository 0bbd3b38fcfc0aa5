"""Dense convolutions of networks that nobody here defined become kernels of ours, and stay right."""

from __future__ import annotations

from collections import Counter

import torch
from network_rig import check
from torch import nn


class Residual(nn.Module):
    """A ResNet's beginning: its stem, a block that halves the image, and one with the shortcut inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.first, self.second = nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.past = nn.Conv2d(8, 12, 1, stride=2, bias=False)
        self.third, self.fourth = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, (3, 1), padding=(1, 0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(image))
        x = torch.relu(self.second(torch.relu(self.first(x))) + self.past(x))
        return torch.relu(self.fourth(torch.relu(self.third(x))) + x)


class OfSlices(nn.Module):
    """Convolutions of the first channels that FasterNet has not: a stride, more results, a bias and an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(8, 8, 1)
        self.strided = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.padded = nn.Conv2d(3, 3, 2, stride=2, padding=1, bias=False)
        self.partial, self.activated = (nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = self.before(x)[:, :3]
        return (
            torch.relu(self.strided(first)),
            self.padded(first),
            torch.relu(self.activated(first)),
            self.partial(first),
        )


class Refused(nn.Module):
    """A dilated convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(8, 4, 3, padding=2, dilation=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dilated(x)


def test_a_resnet_is_kernels_of_ours_with_its_shortcuts_inside() -> None:
    done = check(Residual(), {"convolution": 6}, (1, 3, 33, 46))
    assert not done.refusals
    names = " ".join(variable.name_hint for variable in done.module.get_global_vars())
    assert names.count("NCHW") == 1, "the stem reads the image as it comes"
    assert names.count("shortcut_before_relu") == 2


def test_convolutions_of_the_first_channels_read_them_where_they_lie() -> None:
    done = check(OfSlices(), {"pointwise": 1, "convolution": 3, "partial": 1})
    assert not done.refusals


def test_dilation_is_refused_and_still_right() -> None:
    assert check(Refused(), {}).refusals == Counter({"conv2d: dilation": 1})
