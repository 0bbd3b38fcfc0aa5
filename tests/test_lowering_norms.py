"""What becomes of LayerNorms and of the detour to the channels last: what is found, what is refused and why, on
networks of anybody's. ``lower`` proves each rewrite in float64, or raises."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edge.errors import ExportError
from edge.lowering import Lowered, Outcome, Rewrite, lower, split_depthwise
from edge.lowering import channels_first as first
from edge.lowering import fold_layer_norm_forward as forward
from edge.lowering.forms import FORMS
from edge.lowering.lower import REWRITES
from edge.lowering.split_depthwise import Strip, strips
from edge.models.convnext import Config, ConvNeXt
from edge.models.layers import ChannelLayerNorm
from edge.models.seeded import seed_weights

SAMPLES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ALL = (*REWRITES, *(FORMS[name] for name in ("channels_first", "mean_as_convolution")))


def lowered(network: nn.Module, rewrites: tuple[Rewrite, ...] = ALL, samples: Tensor = SAMPLES) -> Lowered:
    seed_weights(network)
    result = lower(torch.export.export(network.eval(), (samples[:1],)), samples, rewrites=rewrites)
    with torch.no_grad():
        torch.testing.assert_close(result.program.module()(samples[:1]), network(samples[:1]), rtol=1e-4, atol=1e-4)
    return result


def outcome(result: Lowered, name: str) -> Outcome:
    return next(o for o in result.outcomes if o.name == name)


def reasons(result: Lowered, name: str) -> list[str]:
    return [refusal.reason for refusal in outcome(result, name).refused]


def operators(result: Lowered) -> list[str]:
    return [str(n.target).removeprefix("aten.") for n in result.program.graph.nodes if n.op == "call_function"]


class TestConvNeXt:
    NETWORK = ConvNeXt(Config((8, 16), (1, 2), classes=10))

    def test_norms_and_layer_scales_leave_no_parameters_but_those_of_the_norm_after_the_embedding(self) -> None:
        result = lowered(self.NETWORK, REWRITES)
        assert outcome(result, "fold_layer_norm_forward").matches == 5  # three blocks, a merging, the head
        (refusal,) = outcome(result, "fold_layer_norm_forward").refused
        assert refusal.node == "norm" and "pads its input" in refusal.reason
        assert outcome(result, "fold_layer_scale").matches == 3
        assert "mul.Tensor" not in operators(result)

    def test_with_the_channels_first_no_permutation_is_left(self) -> None:
        result = lowered(self.NETWORK)
        assert outcome(result, "channels_first").matches == 5  # that after the embedding, a merging, three blocks
        assert outcome(result, "mean_as_convolution").matches == 10  # two of each norm but the head's
        found = operators(result)
        assert "permute.default" not in found
        assert found.count("layer_norm.default") == found.count("linear.default") == 1  # the head's, of (1, C)


class Net(nn.Module):
    """Layers by name and what is computed with them."""

    def __init__(self, compute: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.compute = compute
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, image: Tensor) -> Tensor:
        return self.compute(self, image)


class TestFoldLayerNormForward:
    def fold(self, network: nn.Module) -> Lowered:
        return lowered(network, (forward.REWRITE,))

    @pytest.mark.parametrize(
        "layer", [nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 2, 2, bias=False), nn.Conv2d(3, 6, 3, padding="valid", groups=3)]
    )
    def test_into_an_unpadded_convolution(self, layer: nn.Conv2d) -> None:
        assert outcome(self.fold(nn.Sequential(ChannelLayerNorm(3), layer)), "fold_layer_norm_forward").matches == 1

    def test_into_a_linear_layer_behind_a_view_and_a_mean(self) -> None:
        def tokens(net: Net, image: Tensor) -> Tensor:
            return net.linear(net.norm(image.permute(0, 2, 3, 1)).reshape(1, -1, 3).mean(1))

        network = Net(tokens, norm=nn.LayerNorm(3, bias=False), linear=nn.Linear(3, 4))
        assert outcome(self.fold(network), "fold_layer_norm_forward").matches == 1

    def test_into_all_that_read_it(self) -> None:
        def queries_and_keys(net: Net, image: Tensor) -> Tensor:
            x = net.norm(image.permute(0, 2, 3, 1))
            return net.q(x) * net.k(x)

        network = Net(queries_and_keys, norm=nn.LayerNorm(3), q=nn.Linear(3, 4), k=nn.Linear(3, 4))
        assert outcome(self.fold(network), "fold_layer_norm_forward").matches == 1

    @pytest.mark.parametrize(
        ("reason", "compute"),
        [
            ("conv2d pads its input", lambda n, x: n.padded(n.norm(x))),
            ("add after it is not a convolution or a linear layer", lambda n, x: n.pointwise(n.norm(x)) + n.norm(x)),
            ("linear after it is not over its channels", lambda n, x: n.rows(n.norm(x))),
            ("after it is not a convolution or a linear layer", lambda n, x: n.mixed(n.norm(x).flatten(1))),
            ("its output leaves the program", lambda n, x: n.norm(x)),
        ],
    )
    def test_it_refuses(self, reason: str, compute: Callable[[Net, Tensor], Tensor]) -> None:
        network = Net(
            compute,
            norm=ChannelLayerNorm(3),
            pointwise=nn.Conv2d(3, 3, 1),
            padded=nn.Conv2d(3, 3, 3, padding=1),
            rows=nn.Linear(32, 2),
            mixed=nn.Linear(3 * 32 * 32, 2),
        )
        result = self.fold(network)
        assert any(reason in said for said in reasons(result, "fold_layer_norm_forward"))

    def test_a_fold_that_forgets_the_shift_is_caught_by_its_proof(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right = forward.scale_and_shift
        monkeypatch.setattr(forward, "scale_and_shift", lambda *args: (right(*args)[0], right(*args)[1] * 0.99))
        with pytest.raises(ExportError, match="fold_layer_norm_forward changed the network"):
            self.fold(nn.Sequential(ChannelLayerNorm(3), nn.Conv2d(3, 6, 1)))


class Mixer(nn.Module):
    """Somebody's own block, with a shortcut and a scale in the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 12, bias=False), nn.Linear(12, 6)
        self.scale = nn.Parameter(torch.ones(1, 1, 6))
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(image).permute(0, 2, 3, 1)
        x = x + self.scale * self.down(nn.functional.silu(self.up(self.norm(x)))) / 2
        return x.permute(0, 3, 1, 2)


def twice(x: Tensor) -> Tensor:
    """To the channels last, and once more in the same way: to another layout."""
    return x.permute(0, 2, 3, 1).relu().permute(0, 2, 3, 1)


class TestChannelsFirst:
    def form(self, network: nn.Module) -> Lowered:
        return lowered(network, (first.REWRITE,))

    def test_a_block_of_somebody_else(self) -> None:
        result = self.form(Mixer())
        assert outcome(result, "channels_first").matches == 1
        assert not {"permute.default", "linear.default", "layer_norm.default"} & set(operators(result))

    def test_two_ways_in_are_one_region(self) -> None:
        def joined(net: Net, image: Tensor) -> Tensor:
            left, right = (layer(image).permute(0, 2, 3, 1) for layer in (net.left, net.right))
            return (net.linear(left) - right.relu()).permute(0, 3, 1, 2)

        network = Net(joined, left=nn.Conv2d(3, 4, 1), right=nn.Conv2d(3, 4, 1), linear=nn.Linear(4, 4))
        assert outcome(self.form(network), "channels_first").matches == 1

    @pytest.mark.parametrize(
        ("reason", "compute"),
        [
            ("view has no form with the channels first", lambda n, x: n.linear(x.permute(0, 2, 3, 1)).view(1, -1, 4)),
            ("the program's output has no form", lambda n, x: n.linear(x.permute(0, 2, 3, 1))),
            ("it is permuted to another layout", lambda n, x: twice(x).relu().permute(0, 3, 1, 2)),
        ],
    )
    def test_it_refuses(self, reason: str, compute: Callable[[Net, Tensor], Tensor]) -> None:
        said = reasons(self.form(Net(compute, linear=nn.Linear(3, 4))), "channels_first")
        assert said and all(reason in each for each in said)

    def test_a_form_that_forgets_epsilon_is_caught_by_its_proof(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right = first.match_layer_norm

        class Forgetful:
            epsilon = 0.0

        monkeypatch.setattr(first, "match_layer_norm", lambda node: right(node) and Forgetful())
        with pytest.raises(ExportError, match="channels_first changed the network"):
            self.form(ChannelLayerNorm(3, 1e-3))


def test_a_mean_over_other_axes_is_no_convolution() -> None:
    def means(net: Net, image: Tensor) -> Tensor:
        return image.mean(2, keepdim=True) + image.mean((1, 2), keepdim=True) + image.mean(1)[:, None]

    assert outcome(lowered(Net(means)), "mean_as_convolution").matches == 0


def test_a_mean_with_wrong_weights_is_caught_by_its_proof() -> None:
    right = FORMS["mean_as_convolution"]

    def biased(module: torch.fx.GraphModule, mean: object) -> None:
        right.apply(module, mean)
        with torch.no_grad():
            module.mean_weights.mul_(1.001)

    wrong = dataclasses.replace(right, apply=biased)
    with pytest.raises(ExportError, match="mean_as_convolution changed the network"):
        lowered(Net(lambda n, x: x.mean(1, keepdim=True)), (wrong,))


class TestSplitDepthwise:
    def split(self, conv: nn.Conv2d) -> Lowered:
        return lowered(nn.Sequential(conv), (FORMS["split_depthwise"],))

    @pytest.mark.parametrize(("lines", "most"), [(7, 3), (9, 2), (11, 2), (8, 3), (51, 8), (31, 8), (13, 6)])
    def test_strips_cover_every_row_once_and_are_symmetric(self, lines: int, most: int) -> None:
        found = strips(lines, most)
        assert sorted(line for strip in found for line in strip.lines) == list(range(lines))
        assert all(strip.lines == {lines - 1 - line for line in strip.lines} for strip in found)
        assert max(strip.count for strip in found) <= most

    def test_seven_rows_are_three_strips(self) -> None:
        assert [sorted(strip.lines) for strip in strips(7, 3)] == [[2, 3, 4], [1, 5], [0, 6]]

    @pytest.mark.parametrize(
        ("conv", "parts"),
        [
            (nn.Conv2d(3, 3, 7, padding=3, groups=3), 3),
            (nn.Conv2d(3, 6, 7, stride=2, padding=3, groups=3, bias=False), 3),
            (nn.Conv2d(3, 3, (3, 15), padding=(1, 7), groups=3), 2),
            (nn.Conv2d(3, 3, 11, padding=6, groups=3), 6),
        ],
    )
    def test_a_large_kernel_becomes_small_ones(self, conv: nn.Conv2d, parts: int) -> None:
        result = self.split(conv)
        assert outcome(result, "split_depthwise").matches == 1
        assert operators(result).count("conv2d.default") == parts

    @pytest.mark.parametrize("conv", [nn.Conv2d(3, 3, 7, padding=3), nn.Conv2d(3, 3, 5, padding=2, groups=3)])
    def test_only_large_depthwise_ones_are(self, conv: nn.Conv2d) -> None:
        result = self.split(conv)
        assert outcome(result, "split_depthwise").matches == 0 and not reasons(result, "split_depthwise")

    @pytest.mark.parametrize(
        ("reason", "conv"),
        [
            ("pads too little", nn.Conv2d(3, 3, 7, groups=3)),
            ("two lines of its kernel have 26 taps", nn.Conv2d(3, 3, 13, padding=6, groups=3)),
        ],
    )
    def test_it_refuses(self, reason: str, conv: nn.Conv2d) -> None:
        (said,) = reasons(self.split(conv), "split_depthwise")
        assert reason in said

    def test_a_part_in_the_wrong_place_is_caught_by_its_proof(self, monkeypatch: pytest.MonkeyPatch) -> None:
        swapped = (Strip(2, 1, 3), Strip(0, 6, 2), Strip(0, 6, 2))
        monkeypatch.setattr(split_depthwise, "strips", lambda lines, most: swapped)
        with pytest.raises(ExportError, match="split_depthwise changed the network"):
            self.split(nn.Conv2d(3, 3, 7, padding=3, groups=3))


def test_constants_lie_in_memory_in_the_order_of_their_dimensions() -> None:
    """Also where sides of 1 leave the choice: ExecuTorch takes the strides for the order, and reads something else."""
    parameters = lowered(TestConvNeXt.NETWORK).program.parameters()
    assert all(p.stride() == torch.empty(p.shape).stride() for p in parameters)
