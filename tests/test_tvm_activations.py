"""Activations of mobile networks end up in the kernels before them, and the blocks around them stay right."""

from __future__ import annotations

import pytest
import torch
from network_rig import check, plain
from torch import nn
from torch.nn import functional


class SqueezeExcite(nn.Module):
    """Scales each channel by what two pointwise convolutions make of the channels' means."""

    def __init__(self, channels: int, inner: nn.Module, outer: nn.Module) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 6, 1), nn.Conv2d(6, channels, 1)
        self.inner, self.outer = inner, outer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.outer(self.expand(self.inner(self.reduce(x.mean((2, 3), keepdim=True)))))


def inverted_residual(activation: type[nn.Module], inner: nn.Module, outer: nn.Module, kernel: int) -> nn.Module:
    """A stem, the block of MobileNetV3 and EfficientNet, which differ in their activations, and the pooling."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2, padding=1), activation(), nn.Conv2d(8, 24, 1), activation()),
        *(nn.Conv2d(24, 24, kernel, stride=2, padding=kernel // 2, groups=24), activation()),
        *(SqueezeExcite(24, inner, outer), nn.Conv2d(24, 12, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


@pytest.mark.parametrize(
    ("block", "inside"),
    [
        (inverted_residual(nn.Hardswish, nn.ReLU(), nn.Hardsigmoid(), 5), ("hard_swish", "relu", "hard_sigmoid")),
        (inverted_residual(nn.SiLU, nn.SiLU(), nn.Sigmoid(), 3), ("silu", "silu", "sigmoid")),
    ],
    ids=["MobileNetV3", "EfficientNet"],
)
def test_a_mobile_block_is_kernels_of_ours_but_for_means_and_the_scaling(
    block: nn.Module, inside: tuple[str, str, str]
) -> None:
    done = check(block, {"convolution": 1, "pointwise": 4, "depthwise": 1}, (1, 3, 29, 30))
    assert not done.refusals
    assert plain(done) == {"mean", "mean1", "multiply"}, "and nothing is transposed"
    names = [variable.name_hint for variable in done.module.get_global_vars()]
    (stem,) = (name for name in names if name.startswith("convolution"))
    (depthwise,) = (name for name in names if name.startswith("depthwise"))
    assert stem.endswith(f"{inside[0]}_NCHW") and depthwise.endswith(inside[0])
    squeezed, excited = (next(n for n in names if n.startswith(f"pointwise_1x{inputs}_")) for inputs in (24, 6))
    assert squeezed.endswith(inside[1]) and excited.endswith(inside[2])


class Each(nn.Module):
    """A pointwise convolution and an activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv, self.activation = nn.Conv2d(4, 6, 1), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.conv(4 * x))


ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "sigmoid": nn.Sigmoid(),
    "hard_sigmoid": nn.Hardsigmoid(),
    "hard_swish": nn.Hardswish(),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_in_the_kernel_before_it(name: str) -> None:
    done = check(Each(ACTIVATIONS[name]), {"pointwise": 1}, (1, 4, 7, 5))
    assert [v.name_hint for v in done.module.get_global_vars() if v.name_hint.endswith(f"_bias_{name}")]


class NearlySilu(nn.Module):
    """What begins as an activation and is none: a sum that is read again, another number, a product with another."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 6, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a, b, c, d = (conv(4 * x) for conv in self.convs)
        return a * torch.sigmoid(a) + a, b * functional.relu6(b + 2) / 6, c * torch.sigmoid(d)


def test_what_is_nearly_an_activation_is_not_taken_for_one() -> None:
    done = check(NearlySilu(), {"pointwise": 4}, (1, 4, 7, 5))
    names = " ".join(variable.name_hint for variable in done.module.get_global_vars())
    assert "silu" not in names and "swish" not in names
    assert "bias_sigmoid" in names, "of what is multiplied with another value"
