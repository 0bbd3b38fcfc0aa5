"""Lowering: every rewrite finds what it should, refuses what it must, says why, and proves what it did."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from conftest import settle_batch_norm
from edge.errors import ExportError
from edge.lowering import Lowered, lower
from edge.lowering import fold_batch_norm_backward as backward
from edge.models.counts import parameters_folded
from edge.models.fasternet import Config, FasterNet, FasterNetPyramid

SAMPLES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def lowered(network: nn.Module, samples: Tensor = SAMPLES, **options) -> Lowered:
    settle_batch_norm(network, torch.randn(4, *samples.shape[1:], generator=torch.Generator().manual_seed(2)))
    result = lower(torch.export.export(network, (samples[:1],)), samples, **options)
    expected, got = network(samples[:1]), result.program.module()(samples[:1])
    for e, g in zip(
        expected if isinstance(expected, tuple) else (expected,), got if isinstance(got, tuple) else (got,), strict=True
    ):
        torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-4)
    return result


def outcome(result: Lowered, name: str):
    return next(o for o in result.outcomes if o.name == name)


def operators(result: Lowered) -> list[str]:
    return [str(n.target).removeprefix("aten.") for n in result.program.graph.nodes if n.op == "call_function"]


def test_fasternet_loses_its_norms_and_its_splits():
    config = Config(16, (1, 1, 2, 1), "gelu", classes=10)
    result = lowered(FasterNet(config))
    assert outcome(result, "fold_batch_norm_backward").matches == 9  # 4 downsamples and 5 blocks
    assert outcome(result, "partial_convolution").matches == 5
    assert result.parameters == parameters_folded(FasterNet(config), SAMPLES[:1].shape)
    found = operators(result)
    assert not any("norm" in op or "split" in op for op in found)
    assert found.count("cat.default") == 5
    assert found.count("slice.Tensor") == 10
    for o in result.outcomes:
        assert not o.refused
        assert o.proof_db is None or o.proof_db >= 250


def test_the_folded_program_keeps_nothing_of_the_norms():
    result = lowered(FasterNet(Config(16, (1, 1, 1, 1), "relu", classes=10)))
    assert not any("running" in name or "num_batches" in name for name in result.program.state_dict)


def test_a_pyramids_norms_are_refused_with_the_reason_and_become_scale_and_shift():
    result = lowered(FasterNetPyramid(Config(16, (1, 1, 1, 1), "relu")))
    forward = outcome(result, "fold_batch_norm_forward")
    assert forward.matches == 0
    assert {r.reason for r in forward.refused} == {"its output leaves the program"}
    assert [r.node for r in forward.refused] == ["norms.0", "norms.1", "norms.2", "norms.3"]
    assert outcome(result, "unfold_batch_norm").matches == 4


class Lateral(nn.Module):
    """A pyramid backbone with the FPN's lateral 1x1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        config = Config(16, (1, 1, 1, 1), "relu")
        self.backbone = FasterNetPyramid(config)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, 8, 1) for channels in config.channels)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(conv(x) for conv, x in zip(self.lateral, self.backbone(image), strict=True))


def test_a_pyramids_norms_fold_into_the_laterals_after_them():
    result = lowered(Lateral())
    assert outcome(result, "fold_batch_norm_forward").matches == 4
    assert outcome(result, "unfold_batch_norm").matches == 0


class Sequence(nn.Module):
    """A few layers with a name for the input."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


@pytest.mark.parametrize("groups", [1, 3])
def test_forward_fold_knows_groups(groups: int):
    result = lowered(Sequence(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 6, 2, stride=2, groups=groups)))
    assert outcome(result, "fold_batch_norm_forward").matches == 1


def test_forward_fold_refuses_a_padded_convolution():
    result = lowered(Sequence(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3, padding=1)))
    (refusal,) = outcome(result, "fold_batch_norm_forward").refused
    assert "pads its input" in refusal.reason
    assert outcome(result, "unfold_batch_norm").matches == 1


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 6, 3, padding="same"),
        nn.Conv2d(3, 6, 3, groups=3, bias=False, dilation=2),
        nn.Conv2d(3, 6, 5, stride=2, padding=2),
    ],
)
def test_backward_fold_takes_any_convolution(conv: nn.Conv2d):
    result = lowered(Sequence(conv, nn.BatchNorm2d(6)))
    assert outcome(result, "fold_batch_norm_backward").matches == 1


class SharedConvolution(nn.Module):
    """The convolution's own output is used beside the norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(image)
        return x + self.norm(x)


def test_backward_fold_refuses_a_convolution_that_others_read():
    result = lowered(SharedConvolution())
    (refusal,) = outcome(result, "fold_batch_norm_backward").refused
    assert "other users" in refusal.reason


class SharedWeights(nn.Module):
    """One convolution applied twice, once with a norm behind it: folding must not touch the other application."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(self.norm(self.conv(image)))


def test_a_fold_leaves_other_uses_of_the_same_weights_alone():
    assert outcome(lowered(SharedWeights()), "fold_batch_norm_backward").matches == 1


class InPlacePartialConv(nn.Module):
    """The paper's inference form, which assigns into the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Conv2d(3, 16, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.mix(image)
        shortcut = x.clone()
        x[:, :4] = self.conv(x[:, :4])
        return x + shortcut


def test_the_in_place_partial_convolution_becomes_slice_convolve_concatenate():
    result = lowered(InPlacePartialConv())
    assert outcome(result, "partial_convolution").matches == 1
    assert not {"slice_scatter.default", "copy.default", "copy_.default", "clone.default"} & set(operators(result))


class ChunkedPartialConv(InPlacePartialConv):
    """A user's own spelling of the same operator."""

    def forward(self, image: Tensor) -> Tensor:
        first, rest = self.mix(image).split([4, 12], 1)
        return torch.cat((self.conv(first), rest), -3)


def test_a_users_own_partial_convolution_is_found():
    assert outcome(lowered(ChunkedPartialConv()), "partial_convolution").matches == 1


class Inverted(nn.Module):
    """A MobileNet-like network: none of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.block = nn.Sequential(
            nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
            nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
            nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Dropout(0.2),
        )  # fmt: skip
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        return self.head((x + self.block(x)).mean((2, 3)))


def test_a_network_that_is_not_ours_goes_the_same_way():
    result = lowered(Inverted())
    assert outcome(result, "fold_batch_norm_backward").matches == 4
    assert outcome(result, "drop_training_leftovers").matches == 1


def test_a_layer_norm_variant_has_nothing_to_fold():
    result = lowered(FasterNet(Config(16, (1, 1, 1, 1), "relu", norm="ln", classes=10)))
    assert outcome(result, "fold_batch_norm_backward").matches == 0


def test_a_wrong_fold_is_caught_by_its_proof(monkeypatch: pytest.MonkeyPatch):
    """The twin: a fold that forgets the running mean must end the run, not ship."""
    right = backward.scale_and_shift

    def forgetful(module, norm):
        scale, shift = right(module, norm)
        return scale, shift * 1.001

    monkeypatch.setattr(backward, "scale_and_shift", forgetful)
    with pytest.raises(ExportError, match="fold_batch_norm_backward changed the network"):
        lowered(FasterNet(Config(16, (1, 1, 1, 1), "relu", classes=10)))


def test_a_rewrite_that_swaps_channels_is_caught_by_its_proof():
    def swap(module, norm):
        backward.apply(module, norm)
        weight = module.get_parameter(str(norm.input.args[1].target))
        with torch.no_grad():
            weight[[0, 1]] = weight[[1, 0]]

    broken = dataclasses.replace(backward.REWRITE, apply=swap)
    with pytest.raises(ExportError, match="changed the network"):
        lowered(FasterNet(Config(16, (1, 1, 1, 1), "relu", classes=10)), rewrites=(broken,))


class Loud(nn.Module):
    """Values far beyond float16 inside, small ones at both ends."""

    def forward(self, image: Tensor) -> Tensor:
        return (image * 1e6).abs().add(1).log()


def test_the_largest_value_inside_the_network_is_known():
    assert lowered(Loud()).largest_activation == pytest.approx(1e6 * float(SAMPLES.abs().max()) + 1)
