"""The folds that attention, layer scales and double heads allow, on networks of anybody's: what they find, what they
refuse and why. ``lower`` proves each in float64, or raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edge.errors import ExportError
from edge.lowering import Lowered, lower
from edge.lowering import fold_layer_scale as layer_scale
from edge.lowering.lower import REWRITES
from edge.models.efficientformerv2 import Config, EfficientFormerV2
from edge.models.seeded import estimate_batch_norm, seed_weights

SAMPLES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def lowered(network: nn.Module, samples: Tensor = SAMPLES) -> Lowered:
    seed_weights(network)
    estimate_batch_norm(network, samples.numpy())
    result = lower(torch.export.export(network, (samples[:1],)), samples)
    torch.testing.assert_close(result.program.module()(samples[:1]), network(samples[:1]), rtol=1e-4, atol=1e-4)
    return result


def outcome(result: Lowered, name: str):
    return next(o for o in result.outcomes if o.name == name)


def reasons(result: Lowered, name: str) -> set[str]:
    return {refusal.reason for refusal in outcome(result, name).refused}


def operators(result: Lowered) -> list[str]:
    return [str(n.target).removeprefix("aten.") for n in result.program.graph.nodes if n.op == "call_function"]


class TestEfficientFormerV2:
    CONFIG = Config((8, 8, 16, 16), ((1,), (1,), (1, 1), (1, 1)), (1, 1), size=64, classes=10)

    def test_everything_that_can_be_folded_is(self) -> None:
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        result = lowered(EfficientFormerV2(self.CONFIG), images)
        assert {o.name: o.matches for o in result.outcomes if o.matches} == {
            "reshape_views": 30,
            "drop_training_leftovers": 3,
            "mean_over_positions": 1,
            "fold_constants": 11,  # 8 layer scales and 3 tables of attention biases
            "fold_batch_norm_backward": 39,
            "fold_batch_norm_forward": 1,
            "merge_parallel_layers": 2,  # the two heads; the sampled queries
            "fold_layer_scale": 9,  # and the half of the heads' mean
            "fold_attention_scale": 3,
            "fold_addend": 2,  # with talking heads; the downsampling attention has none
        }
        found = operators(result)
        assert not {"mul.Tensor", "div.Tensor", "index.Tensor", "avg_pool2d.default"} & set(found)
        assert found.count("linear.default") == 1
        assert not any(o.refused for o in result.outcomes)


class Net(nn.Module):
    """Layers and constants by name, and what is computed with them."""

    def __init__(self, compute: Callable[[Any, Tensor], Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(part))

    def forward(self, image: Tensor) -> Tensor:
        return self.compute(self, image)


class TestLayerScale:
    @pytest.mark.parametrize(
        ("layer", "factor", "permuted"),
        [
            (nn.Conv2d(3, 6, 3, padding=1), (6, 1, 1), False),
            (nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False), (1, 6, 1, 1), False),
            (nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)), (6, 1, 1), False),
            (nn.Conv2d(3, 6, 1), (1,), False),
            (nn.Linear(3, 6), (6, 1, 1), True),
            (nn.Linear(3, 6, bias=False), (), True),
        ],
        ids=["channels", "groups", "behind a norm", "one number", "channels last", "one number, channels last"],
    )
    def test_it_goes_into_the_layer_before_it(self, layer: nn.Module, factor: tuple, permuted: bool) -> None:
        def scaled(net: Net, image: Tensor) -> Tensor:
            if permuted:
                return net.factor * net.layer(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return net.layer(image) * net.factor

        result = lowered(
            Net(lambda net, x: x.repeat(1, 2, 1, 1) + scaled(net, x), layer=layer, factor=torch.ones(factor))
        )
        assert outcome(result, "fold_layer_scale").matches == 1
        assert "mul.Tensor" not in operators(result)

    def test_the_order_channels_last_before_the_permutation_as_well(self) -> None:
        def branch(net: Net, image: Tensor) -> Tensor:
            return image + (net.layer(image.permute(0, 2, 3, 1)) / net.factor).permute(0, 3, 1, 2)

        result = lowered(Net(branch, layer=nn.Linear(3, 3), factor=torch.ones(3)))
        assert outcome(result, "fold_layer_scale").matches == 1

    def test_a_layer_that_others_read_is_left_alone(self) -> None:
        def shared(net: Net, image: Tensor) -> Tensor:
            y = net.layer(image)
            return y + y * net.factor

        result = lowered(Net(shared, layer=nn.Conv2d(3, 6, 1), factor=torch.ones(6, 1, 1)))
        assert reasons(result, "fold_layer_scale") == {"conv2d has other users, which need it without the factor"}

    def test_factors_along_another_axis_are_refused(self) -> None:
        result = lowered(Net(lambda n, x: n.layer(x) * n.factor, layer=nn.Conv2d(3, 6, 1), factor=torch.ones(32, 1)))
        assert reasons(result, "fold_layer_scale") == {"the factors are not those of conv2d's channels"}

    def test_a_mask_over_positions_is_no_layer_scale(self) -> None:
        result = lowered(Net(lambda n, x: n.layer(x) * n.mask, layer=nn.Conv2d(3, 6, 1), mask=torch.ones(32, 32)))
        assert outcome(result, "fold_layer_scale").matches == 0 and not reasons(result, "fold_layer_scale")

    def test_a_wrong_fold_is_caught_by_its_proof(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The twin: a fold that forgets the bias must end the run."""
        right = layer_scale.set_layer
        monkeypatch.setattr(layer_scale, "set_layer", lambda *args: right(*args[:-1], torch.zeros_like(args[-1])))
        layer = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6))
        with pytest.raises(ExportError, match="fold_layer_scale changed the network"):
            lowered(Net(lambda n, x: n.layer(x) * n.factor, layer=layer, factor=torch.ones(6, 1, 1)))


class TestAttentionScale:
    def test_it_goes_through_reshapes_into_the_queries(self) -> None:
        def compute(net: Net, image: Tensor) -> Tensor:
            tokens = torch.max_pool2d(image, 4).flatten(2).transpose(1, 2)
            query, key = (layer(tokens).unflatten(2, (2, 4)).transpose(1, 2) for layer in (net.query, net.key))
            return (query @ key.transpose(2, 3) / 2.5).softmax(-1)

        result = lowered(Net(compute, query=nn.Linear(3, 8), key=nn.Linear(3, 8, bias=False)))
        assert outcome(result, "fold_attention_scale").matches == 1
        assert "div.Tensor" not in operators(result)

    def test_it_takes_the_keys_where_the_queries_come_from_no_layer(self) -> None:
        def compute(net: Net, image: Tensor) -> Tensor:
            return 0.5 * (image.relu() @ net.key(image))

        assert outcome(lowered(Net(compute, key=nn.Conv2d(3, 3, 1))), "fold_attention_scale").matches == 1

    def test_scores_that_others_read_and_operands_of_no_layer_are_refused(self) -> None:
        def shared(net: Net, image: Tensor) -> Tensor:
            scores = net.query(image) @ image
            return scores * 0.5 + scores

        result = lowered(Net(shared, query=nn.Conv2d(3, 3, 1)))
        assert reasons(result, "fold_attention_scale") == {"matmul has other users, which need it without the scale"}
        (reason,) = reasons(lowered(Net(lambda net, x: (x.relu() @ x.sin()) * 0.5)), "fold_attention_scale")
        assert reason.startswith("relu is neither a layer's output nor a rearrangement of one; sin is neither")


class TestAddend:
    def test_a_position_embedding_takes_the_bias_along(self) -> None:
        network = Net(
            lambda n, x: n.conv(x.sin() + n.place), conv=nn.Conv2d(3, 3, 3, padding=1), place=torch.ones(3, 32, 32)
        )
        result = lowered(network)
        assert outcome(result, "fold_addend").matches == 1
        assert operators(result) == ["sin.default", "conv2d.default", "add.Tensor"]

    def test_a_constant_for_every_channel_becomes_the_bias(self) -> None:
        result = lowered(
            Net(lambda n, x: n.conv(n.shift + x.sin()), conv=nn.Conv2d(3, 6, 2), shift=torch.ones(3, 1, 1))
        )
        assert operators(result) == ["sin.default", "conv2d.default"]

    def test_padding_would_make_the_constant_grow(self) -> None:
        network = Net(
            lambda n, x: n.conv(x.sin() + n.shift), conv=nn.Conv2d(3, 6, 3, padding=1), shift=torch.ones(3, 1, 1)
        )
        (reason,) = reasons(lowered(network), "fold_addend")
        assert "the constant would grow" in reason

    def test_a_sum_that_others_read_is_left_alone(self) -> None:
        def shared(net: Net, image: Tensor) -> Tensor:
            moved = image.sin() + net.shift
            return net.conv(moved) + moved

        assert reasons(lowered(Net(shared, conv=nn.Conv2d(3, 3, 1), shift=torch.ones(3, 1, 1))), "fold_addend") == {
            "add has other users"
        }


class TestParallelLayers:
    @pytest.mark.parametrize(
        "mean",
        [lambda a, b: (a + b) / 2, lambda a, b: a / 2 + b / 2, lambda a, b: 0.25 * a + b * 0.75],
        ids=["(a + b) / 2", "a / 2 + b / 2", "weighted"],
    )
    def test_two_heads_become_one(self, mean: Callable[[Tensor, Tensor], Tensor]) -> None:
        def compute(net: Net, image: Tensor) -> Tensor:
            features = image.mean((2, 3))
            return mean(net.first(features), net.second(features))

        result = lowered(Net(compute, first=nn.Linear(3, 5), second=nn.Linear(3, 5, bias=False)))
        assert operators(result) == ["mean.dim", "linear.default"]

    @pytest.mark.parametrize(
        ("large", "small"),
        [
            (nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 1)),
            (nn.Conv2d(3, 6, (5, 3), padding=(2, 1), groups=3), nn.Conv2d(3, 6, (1, 3), padding=(0, 1), groups=3)),
            (nn.Conv2d(3, 3, 3, 2, 1, groups=3), nn.AvgPool2d(1, 2)),
            (nn.Conv2d(3, 3, 3, 2, 1), nn.AvgPool2d(1, 2)),
        ],
        ids=["3x3 and 1x1", "groups, oblong", "sampling beside depthwise", "sampling beside all channels"],
    )
    def test_branches_become_one_kernel(self, large: nn.Conv2d, small: nn.Module) -> None:
        result = lowered(Net(lambda n, x: n.small(x) + n.large(x), large=large, small=small))
        assert operators(result) == ["conv2d.default"]

    @pytest.mark.parametrize(
        ("large", "small", "reason"),
        [
            (nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1, groups=3), "different groups"),
            (nn.Conv2d(3, 3, 3, padding=2, dilation=2), nn.Conv2d(3, 3, 1), "differ in stride or dilation"),
            (nn.Conv2d(3, 3, 4, 4), nn.Conv2d(3, 3, 3, 4, 1), "reads what"),
            (nn.Conv2d(3, 3, 3, padding="same"), nn.Conv2d(3, 3, 1), "of different kinds"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, large: nn.Conv2d, small: nn.Conv2d, reason: str) -> None:
        (given,) = reasons(
            lowered(Net(lambda n, x: n.large(x) + n.small(x), large=large, small=small)), "merge_parallel_layers"
        )
        assert reason in given

    def test_a_branch_that_others_read_is_left_alone(self) -> None:
        def shared(net: Net, image: Tensor) -> Tensor:
            first = net.first(image)
            return (first + net.second(image)).relu() + first

        result = lowered(Net(shared, first=nn.Conv2d(3, 3, 1), second=nn.Conv2d(3, 3, 1)))
        assert reasons(result, "merge_parallel_layers") == {"conv2d has other users"}


class TestLastNorm:
    @pytest.mark.parametrize(
        "pool",
        [
            lambda x: x.flatten(2).mean(2),
            lambda x: x.mean((2, 3)),
            lambda x: nn.functional.adaptive_avg_pool2d(x, 1).flatten(1),
            lambda x: x.mean(-1).mean(-1),
        ],
    )
    def test_it_goes_through_the_mean_into_every_head(self, pool: Callable[[Tensor], Tensor]) -> None:
        def compute(net: Net, image: Tensor) -> Tensor:
            features = pool(net.norm(image.sin()))
            return net.first(features).relu() + net.second(features)

        result = lowered(
            Net(compute, norm=nn.BatchNorm2d(3), first=nn.Linear(3, 5), second=nn.Linear(3, 5, bias=False))
        )
        assert outcome(result, "fold_batch_norm_forward").matches == 1
        assert not {"mul.Tensor", "_native_batch_norm_legit_no_training.default"} & set(operators(result))

    def test_other_readers_and_mixed_channels_are_refused(self) -> None:
        def shared(net: Net, image: Tensor) -> Tensor:
            y = net.norm(image.sin()).mean((2, 3))
            return net.head(y) + y.relu()

        result = lowered(Net(shared, norm=nn.BatchNorm2d(3), head=nn.Linear(3, 3)))
        assert reasons(result, "fold_batch_norm_forward") == {"relu after it is not a convolution or a linear layer"}
        result = lowered(Net(lambda n, x: n.head(n.norm(x.sin())), norm=nn.BatchNorm2d(3), head=nn.Linear(32, 3)))
        assert reasons(result, "fold_batch_norm_forward") == {"linear after it is not over its channels"}


@pytest.mark.parametrize(
    ("mean", "matches"),
    [
        (lambda x: x.flatten(2).mean(2), 1),
        (lambda x: x.reshape(1, 3, -1).mean(-1), 1),
        (lambda x: x.flatten(1).mean(1), 0),
        (lambda x: x.flatten(2).mean(1), 0),
    ],
    ids=["positions", "positions, counted from behind", "channels too", "channels alone"],
)
def test_a_mean_over_flattened_positions_is_one_over_height_and_width(
    mean: Callable[[Tensor], Tensor], matches: int
) -> None:
    assert outcome(lowered(Net(lambda n, x: mean(x.sin()))), "mean_over_positions").matches == matches


def test_what_depends_on_no_input_is_computed() -> None:
    def compute(net: Net, image: Tensor) -> Tensor:
        return image + net.table[:, torch.arange(32) // 4].exp().unsqueeze(1)

    result = lowered(Net(compute, table=torch.ones(3, 8)))
    assert outcome(result, "fold_constants").matches >= 3
    assert operators(result) == ["add.Tensor"]


def test_a_view_survives_the_loss_of_the_copy_before_it() -> None:
    result = lowered(Net(lambda n, x: x.transpose(1, 2).reshape(1, 32, 96).sin().view(1, 96, 32).view(96, 32).sum(0)))
    assert outcome(result, "drop_training_leftovers").matches == 1
    assert operators(result).count("reshape.default") == 2


def test_every_rewrite_is_tested_by_name() -> None:
    files = [*Path(__file__).parent.glob("test_lowering*.py"), Path(__file__).with_name("test_trim_kernels.py")]
    tests = "".join(file.read_text() for file in files)
    assert [rewrite.name for rewrite in REWRITES if f'"{rewrite.name}"' not in tests] == []
