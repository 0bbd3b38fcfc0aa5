"""FasterNet is the paper's: its sizes to the last parameter, its function against an independent evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.models import counts, create, find
from edge.models.fasternet import VARIANTS, Config, FasterNet, FasterNetPyramid

INPUT = (1, 3, 224, 224)

# parameters, multiply-accumulates at 224, parameters with the norms folded, parameters of the pyramid, BatchNorms
TABLE = {
    "t0": (3_905_500, 335_422_720, 3_900_660, 2_216_100, 17),
    "t1": (7_595_368, 850_511_872, 7_587_624, 5_660_928, 17),
    "t2": (14_982_888, 1_904_334_848, 14_971_272, 12_721_728, 17),
    "s": (31_181_032, 4_549_740_544, 31_160_424, 28_593_152, 22),
    "m": (53_521_464, 8_721_938_432, 53_488_488, 50_770_224, 32),
    "l": (93_465_192, 15_494_383_616, 93_421_224, 90_223_872, 32),
}


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create(name, **options)


@pytest.mark.parametrize("variant", TABLE)
def test_counts_are_those_of_table_8(variant: str) -> None:
    network, pyramid = on_meta(f"fasternet_{variant}"), on_meta(f"fasternet_{variant}_pyramid")
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert (
        counts.parameters(network),
        counts.macs(network, INPUT),
        counts.parameters_folded(network, INPUT),
        counts.parameters(pyramid),
        norms,
    ) == TABLE[variant]


@pytest.mark.parametrize("variant", TABLE)
def test_the_pyramid_has_four_levels(variant: str) -> None:
    features = on_meta(f"fasternet_{variant}_pyramid")(torch.empty(INPUT, device="meta"))
    width = VARIANTS[variant].width
    assert [tuple(f.shape) for f in features] == [(1, width << level, 56 >> level, 56 >> level) for level in range(4)]


def test_the_pyramids_own_norms_are_not_folded() -> None:
    """They read the sum at the end of a stage, so only the 17 norms behind convolutions are saved."""
    network, pyramid = on_meta("fasternet_t0"), on_meta("fasternet_t0_pyramid")
    saved = counts.parameters(network) - counts.parameters_folded(network, INPUT)
    assert counts.parameters(pyramid) - counts.parameters_folded(pyramid, INPUT) == saved == 4_840


def test_counting_leaves_the_network_alone() -> None:
    network = FasterNet(Config(8, (1, 1, 1, 1), "relu")).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    counts.macs(network, (1, 3, 64, 64))
    counts.parameters_folded(network, (1, 3, 64, 64))
    assert network.training and not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_only_a_norm_right_behind_a_convolution_is_folded() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    assert counts.parameters_folded(network, (1, 3, 8, 8)) == counts.parameters(network)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert counts.parameters_folded(network, (1, 3, 8, 8)) == counts.parameters(network) - 8


class TestTable5:
    """The ablations: partial ratio, norm and activation."""

    @pytest.mark.parametrize("n_div", [2, 4, 8])
    def test_partial_ratio(self, n_div: int) -> None:
        """Only the 3x3 kernels change: 9 c_p^2 parameters, and that many multiply-accumulates at every position."""
        config = VARIANTS["t0"]
        stages = [(c, d, (56 >> i) ** 2) for i, (c, d) in enumerate(zip(config.channels, config.depths, strict=True))]
        parameters = sum(d * 9 * ((c // n_div) ** 2 - (c // 4) ** 2) for c, d, _ in stages)
        macs = sum(d * 9 * ((c // n_div) ** 2 - (c // 4) ** 2) * positions for c, d, positions in stages)
        network = on_meta("fasternet_t0", n_div=n_div)
        assert counts.parameters(network) == TABLE["t0"][0] + parameters
        assert counts.macs(network, INPUT) == TABLE["t0"][1] + macs

    def test_layer_norm_has_batch_norms_size_and_cannot_be_folded(self) -> None:
        network = on_meta("fasternet_t0", norm="ln")
        assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        assert counts.parameters(network) == counts.parameters_folded(network, INPUT) == TABLE["t0"][0]

    @pytest.mark.parametrize("activation", ["gelu", "relu"])
    @pytest.mark.parametrize("norm", ["bn", "ln"])
    @pytest.mark.parametrize("n_div", [2, 4, 8])
    def test_every_combination_runs(self, n_div: int, norm: str, activation: str) -> None:
        torch.manual_seed(0)
        network = create("fasternet_t0", n_div=n_div, norm=norm, activation=activation)
        with torch.no_grad():
            logits = network(torch.randn(2, 3, 64, 64))
        assert logits.shape == (2, 1000) and bool(logits.isfinite().all()) and logits.std() > 0

    def test_layer_norm_is_over_the_channels_of_each_position(self) -> None:
        network = create("fasternet_t0", norm="ln").double()
        norm = network.get_submodule("embedding.norm")
        x = torch.randn(2, 40, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        centred = x - x.mean(1, keepdim=True)
        torch.testing.assert_close(norm(x), centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt())

    @pytest.mark.parametrize("wrong", [{"n_div": 3}, {"n_div": 0}, {"norm": "gn"}, {"activation": "silu"}])
    def test_another_choice_is_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            create("fasternet_t0", **wrong)


def evaluate(network: FasterNet | FasterNetPyramid, image: Tensor) -> list[Tensor]:
    """The paper's equations on a network's weights, in plain functions: the outputs of the stages, then the logits."""
    weights, config = network.state_dict(), network.config

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, gamma, beta = (
            weights[f"{name}.{kind}"].reshape(1, -1, 1, 1) for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gamma + beta

    def activation(x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / 2**0.5)) if config.activation == "gelu" else x.clamp(min=0)

    stages = []
    x = norm(functional.conv2d(image, weights["embedding.conv.weight"], stride=4), "embedding.norm")
    for stage, depth in enumerate(config.depths):
        if stage:
            x = functional.conv2d(x, weights[f"mergings.{stage - 1}.conv.weight"], stride=2)
            x = norm(x, f"mergings.{stage - 1}.norm")
        for block in range(depth):
            name = f"stages.{stage}.{block}"
            y, partial = x.clone(), x.shape[1] // config.n_div
            y[:, :partial] = functional.conv2d(x[:, :partial], weights[f"{name}.partial.conv.weight"], padding=1)
            y = activation(norm(functional.conv2d(y, weights[f"{name}.expand.weight"]), f"{name}.norm"))
            y = functional.conv2d(y, weights[f"{name}.project.weight"])
            scale = weights.get(f"{name}.layer_scale", torch.ones(x.shape[1]))
            x = x + scale.reshape(1, -1, 1, 1) * y
        stages.append(x)
    if isinstance(network, FasterNetPyramid):
        return [norm(x, f"norms.{stage}") for stage, x in enumerate(stages)]
    pooled = stages[-1].mean((2, 3), keepdim=True)
    features = activation(functional.conv2d(pooled, weights["head.weight"])).flatten(1)
    return [features @ weights["classifier.weight"].T + weights["classifier.bias"]]


@pytest.mark.parametrize("network_type", [FasterNet, FasterNetPyramid])
@pytest.mark.parametrize(
    "config",
    [
        Config(16, (1, 2, 1, 1), "gelu", classes=10),
        Config(16, (1, 2, 1, 1), "relu", n_div=2, classes=10),
        Config(16, (1, 1, 2, 1), "gelu", n_div=8, layer_scale=0.3, classes=10),
    ],
    ids=["gelu", "relu, half", "gelu, an eighth, layer scale"],
)
def test_the_function_is_the_papers(network_type: type[FasterNet | FasterNetPyramid], config: Config) -> None:
    generator = torch.Generator().manual_seed(0)
    network = network_type(config).double().eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                low = 0.5 if name.endswith("running_var") else -0.5
                value.uniform_(low, low + 1, generator=generator)
        image = torch.randn(2, 3, 64, 64, generator=generator, dtype=torch.float64)
        got = network(image)
    for mine, papers in zip([got] if isinstance(got, Tensor) else got, evaluate(network, image), strict=True):
        torch.testing.assert_close(mine, papers, rtol=1e-10, atol=1e-10)


def test_every_entry_says_how_its_images_are_made() -> None:
    preprocessing = find("fasternet_t1").preprocessing
    assert (preprocessing.size, preprocessing.crop) == (224, 0.9)
    assert preprocessing.mean == (0.485, 0.456, 0.406) and preprocessing.std == (0.229, 0.224, 0.225)
