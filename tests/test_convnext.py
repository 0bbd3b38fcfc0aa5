"""ConvNeXt is the paper's: its sizes to the last parameter, its function against an independent evaluation, and the
road from ResNet-50 to it step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.models import Entry, checkpoints, counts, create, find
from edge.models import convnext_roadmap as roadmap
from edge.models.convnext import ISOTROPIC_VARIANTS, PREPROCESSING, Config, ConvNeXt, IsotropicConvNeXt
from edge.models.convnext_keys import ISOTROPIC_KEY_MAPS, KEY_MAPS
from edge.models.convnext_roadmap_keys import KEY_MAPS as RESNET_KEY_MAPS

State = dict[str, Tensor]

# parameters, multiply-accumulates at the network's resolution
TABLE = {
    "convnext_tiny": (28_589_128, 4_455_531_264),
    "convnext_small": (50_223_688, 8_683_712_256),
    "convnext_base": (88_591_464, 15_354_729_472),
    "convnext_large": (197_767_336, 34_361_433_600),
    "convnext_xlarge": (350_196_968, 60_921_030_656),
    "convnext_tiny_384": (28_589_128, 13_092_317_184),
    "convnext_small_384": (50_223_688, 25_517_991_936),
    "convnext_base_384": (88_591_464, 45_122_117_632),
    "convnext_large_384": (197_767_336, 100_977_561_600),
    "convnext_xlarge_384": (350_196_968, 179_029_262_336),
    "convnext_iso_s": (22_308_712, 4_286_367_744),
    "convnext_iso_b": (87_083_752, 16_896_331_776),
    "convnext_iso_l": (305_942_504, 59_699_224_576),
}


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create(name, **options)


@pytest.mark.parametrize("name", TABLE)
def test_counts_are_the_papers(name: str) -> None:
    network = on_meta(name)
    assert (counts.parameters(network), counts.macs(network, find(name).input_shape)) == TABLE[name]


def test_only_the_largest_isotropic_network_has_a_layer_scale() -> None:
    assert [config.layer_scale is None for config in ISOTROPIC_VARIANTS.values()] == [True, True, False]
    assert counts.parameters(on_meta("convnext_iso_l", layer_scale=None)) == 305_905_640


def test_every_entry_says_how_its_images_are_made() -> None:
    for name in TABLE:
        preprocessing = find(name).preprocessing
        assert (preprocessing.size, preprocessing.crop) == ((384, 1.0) if name.endswith("_384") else (224, 0.875))
        assert preprocessing.mean == (0.485, 0.456, 0.406) and preprocessing.std == (0.229, 0.224, 0.225)


def test_a_width_without_a_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="widths"):
        create("convnext_tiny", widths=(96, 192, 384))


TINY = Config((8, 16, 24, 32), (1, 2, 1, 1), classes=10)
TINY_ISOTROPIC = Config((24,), (3,), layer_scale=None, classes=10)


def randomise(network: nn.Module) -> State:
    """No two tensors equal, so that a wrong name shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                low = 0.5 if name.endswith("running_var") else -0.5
                value.uniform_(low, low + 1, generator=generator)
    return {name: value.clone() for name, value in network.state_dict().items()}


def layer_norm(x: Tensor, weights: State, name: str) -> Tensor:
    """As the authors write their channels-first form: over dimension 1, epsilon inside the root."""
    centred = x - x.mean(1, keepdim=True)
    normalised = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
    shape = (1, -1, *[1] * (x.ndim - 2))
    return normalised * weights[f"{name}.weight"].reshape(shape) + weights[f"{name}.bias"].reshape(shape)


def evaluate_block(x: Tensor, weights: State, name: str) -> Tensor:
    """Channels first throughout, with 1x1 convolutions for the linear layers."""

    def layer(y: Tensor, layer_name: str, **options: int) -> Tensor:
        weight, bias = weights[f"{name}.{layer_name}.weight"], weights[f"{name}.{layer_name}.bias"]
        return functional.conv2d(y, weight.reshape(*weight.shape[:2], *weight.shape[2:] or (1, 1)), bias, **options)

    y = layer_norm(layer(x, "depthwise", padding=3, groups=x.shape[1]), weights, f"{name}.norm")
    y = layer(y, "expand")
    y = layer(y * 0.5 * (1 + torch.erf(y / 2**0.5)), "project")
    return x + y * weights.get(f"{name}.layer_scale", torch.ones(x.shape[1])).reshape(1, -1, 1, 1)


def evaluate(network: ConvNeXt | IsotropicConvNeXt, image: Tensor) -> Tensor:
    """The paper's equations on a network's weights, in plain functions."""
    weights, config = network.state_dict(), network.config
    embedding = weights["embedding.weight"]
    x = functional.conv2d(image, embedding, weights["embedding.bias"], stride=embedding.shape[-1])
    if isinstance(network, ConvNeXt):
        x = layer_norm(x, weights, "norm")
    for stage, depth in enumerate(config.depths):
        if stage:
            x = layer_norm(x, weights, f"mergings.{stage - 1}.norm")
            merging = f"mergings.{stage - 1}.conv"
            x = functional.conv2d(x, weights[f"{merging}.weight"], weights[f"{merging}.bias"], stride=2)
        for block in range(depth):
            prefix = f"stages.{stage}" if isinstance(network, ConvNeXt) else "blocks"
            x = evaluate_block(x, weights, f"{prefix}.{block}")
    pooled = layer_norm(x.mean((2, 3)), weights, "head.norm")
    return pooled @ weights["head.classifier.weight"].T + weights["head.classifier.bias"]


@pytest.mark.parametrize(
    "network",
    [ConvNeXt(TINY), ConvNeXt(replace(TINY, layer_scale=None)), IsotropicConvNeXt(TINY_ISOTROPIC)],
    ids=["convnext", "without layer scale", "isotropic"],
)
def test_the_function_is_the_papers(network: ConvNeXt | IsotropicConvNeXt) -> None:
    network.double().eval()
    randomise(network)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), evaluate(network, image), rtol=1e-10, atol=1e-10)


def names(config: Config) -> Iterator[tuple[str, str, str]]:
    """Every module's name: ours, the authors', timm's; from the three sources, not from the rules under test."""
    yield "embedding", "downsample_layers.0.0", "stem.0"
    yield "norm", "downsample_layers.0.1", "stem.1"
    for stage, depth in enumerate(config.depths):
        if stage:
            yield f"mergings.{stage - 1}.norm", f"downsample_layers.{stage}.0", f"stages.{stage}.downsample.0"
            yield f"mergings.{stage - 1}.conv", f"downsample_layers.{stage}.1", f"stages.{stage}.downsample.1"
        for block in range(depth):
            yield from block_names(
                f"stages.{stage}.{block}", f"stages.{stage}.{block}", f"stages.{stage}.blocks.{block}"
            )
    yield "head.norm", "norm", "head.norm"
    yield "head.classifier", "head", "head.fc"


def isotropic_names(config: Config) -> Iterator[tuple[str, str]]:
    yield "embedding", "stem"
    for block in range(config.depths[0]):
        yield from (row[:2] for row in block_names(f"blocks.{block}", f"blocks.{block}", ""))
    yield "head.norm", "norm"
    yield "head.classifier", "head"


def block_names(ours: str, authors: str, timm: str) -> Iterator[tuple[str, str, str]]:
    yield f"{ours}.depthwise", f"{authors}.dwconv", f"{timm}.conv_dw"
    yield f"{ours}.norm", f"{authors}.norm", f"{timm}.norm"
    yield f"{ours}.expand", f"{authors}.pwconv1", f"{timm}.mlp.fc1"
    yield f"{ours}.project", f"{authors}.pwconv2", f"{timm}.mlp.fc2"


def as_written_by(writer: str, state: State, config: Config = TINY) -> State:
    """The same weights under another's keys."""
    rows = isotropic_names(config) if len(config.depths) == 1 else names(config)
    table = {row[0]: row[{"authors": 1, "timm": 2}[writer]] for row in rows}

    def rename(key: str) -> str:
        owner, _, leaf = key.rpartition(".")
        if leaf == "layer_scale":  # of the block itself, which has a name beside its layers'
            return f"{table[f'{owner}.norm'].removesuffix('.norm')}.gamma"
        return f"{table[owner]}.{leaf}"

    return {rename(key): value for key, value in state.items()}


def load(entry: Entry, state: State, path: Path) -> tuple[nn.Module, str]:
    torch.save({"model": state}, path)
    network = entry.build()
    return network, checkpoints.apply(entry, network, checkpoints.load(path), path).keys


CLASSIFIER = Entry("tiny", lambda: ConvNeXt(TINY), ("logits",), PREPROCESSING, KEY_MAPS, "these tests")
ISOTROPIC = Entry(
    "tiny", lambda: IsotropicConvNeXt(TINY_ISOTROPIC), ("logits",), PREPROCESSING, ISOTROPIC_KEY_MAPS, "these tests"
)


def assert_same(network: nn.Module, state: State) -> None:
    got = network.state_dict()
    assert got.keys() == state.keys()
    assert [name for name in state if not torch.equal(got[name], state[name])] == []


class TestCheckpoints:
    @pytest.mark.parametrize("writer", ["authors", "timm"])
    def test_every_writers_load(self, writer: str, tmp_path: Path) -> None:
        state = randomise(ConvNeXt(TINY))
        network, keys = load(CLASSIFIER, as_written_by(writer, state), tmp_path / "weights.pth")
        assert_same(network, state)
        assert keys == writer

    @pytest.mark.parametrize("writer", ["authors", "timm"])
    def test_linear_layers_may_be_stored_as_1x1_convolutions(self, writer: str, tmp_path: Path) -> None:
        state = randomise(ConvNeXt(TINY))
        linear = tuple(f"{layer}.weight" for layer in ("pwconv1", "pwconv2", "fc1", "fc2"))
        stored = {
            key: value[..., None, None] if key.endswith(linear) else value
            for key, value in as_written_by(writer, state).items()
        }
        assert_same(load(CLASSIFIER, stored, tmp_path / "weights.pth")[0], state)

    def test_isotropic(self, tmp_path: Path) -> None:
        state = randomise(IsotropicConvNeXt(TINY_ISOTROPIC))
        written = as_written_by("authors", state, TINY_ISOTROPIC)
        network, keys = load(ISOTROPIC, written, tmp_path / "weights.pth")
        assert_same(network, state)
        assert keys == "authors"

    @pytest.mark.parametrize(("name", "keys"), [("tiny", 182), ("base", 344)])
    def test_published_files_have_this_many_keys_and_no_two_writers_are_taken_for_each_other(
        self, name: str, keys: int
    ) -> None:
        network = on_meta(f"convnext_{name}")
        assert isinstance(network, ConvNeXt)
        for writer, other in (("authors", "timm"), ("timm", "authors")):
            written = as_written_by(writer, network.state_dict(), network.config)
            assert len(written) == keys and KEY_MAPS[other](written) is None
            mapped = KEY_MAPS[writer](written)
            assert mapped is not None and mapped.keys() == network.state_dict().keys()


# The steps of Table 4.10 with their GFLOPs, which are multiply-accumulates.
TABLE_4_10 = {
    "resnet50": 4.09,
    "stage_ratio": 4.53,
    "patchify_stem": 4.42,
    "depthwise_conv": 2.35,
    "increase_width": 5.27,
    "inverted_dimensions": 4.64,
    "move_up_depthwise_conv": 4.07,
    "kernel_5": 4.10,
    "kernel_7": 4.15,
    "kernel_9": 4.21,
    "kernel_11": 4.29,
    "gelu": 4.15,
    "fewer_activations": 4.15,
    "fewer_norms": 4.15,
    # The table has 4.46 here and 4.49 for ConvNeXt-T. A norm has no multiply-accumulates, ConvNeXt-T has 4.46, and in
    # Table 4.11 the same change leaves the count as it is.
    "layer_norm": 4.15,
}

RESNET_200 = replace(roadmap.RESNET_50, depths=(3, 24, 36, 3))
WIDER = replace(RESNET_200, depths=(3, 3, 27, 3), width=84)
DEPTHWISE = replace(WIDER, stem="patchify", depthwise=True)
INVERTED = replace(DEPTHWISE, width=128, shape="inverted")
MOVED_UP = replace(INVERTED, shape="depthwise first")

# Some of the same steps in the larger regime.
TABLE_4_11 = [
    (RESNET_200, 15.01),
    (WIDER, 14.52),
    (DEPTHWISE, 7.23),
    (INVERTED, 15.68),
    (MOVED_UP, 14.63),
    (replace(MOVED_UP, kernel=7, activation="gelu", activations="one", norms="one", norm="ln"), 14.81),
]


class TestRoadmap:
    @pytest.mark.parametrize("step", roadmap.STEPS)
    def test_every_step_costs_what_the_table_says(self, step: str) -> None:
        macs = counts.macs(on_meta(f"convnext_roadmap_{step}"), (1, 3, 224, 224))
        assert round(macs / 1e9, 2) == TABLE_4_10[step]

    @pytest.mark.parametrize(("config", "gflops"), TABLE_4_11)
    def test_the_larger_regime_too(self, config: roadmap.Config, gflops: float) -> None:
        with torch.device("meta"):
            macs = counts.macs(roadmap.Roadmap(config), (1, 3, 224, 224))
        assert round(macs / 1e9, 2) == gflops

    def test_it_begins_with_resnet_50(self) -> None:
        network = on_meta("convnext_roadmap_resnet50")
        assert counts.parameters(network) == 25_557_032
        assert counts.macs(network, (1, 3, 224, 224)) == 4_089_184_256

    @pytest.mark.parametrize(
        ("step", "norms", "activations"),
        [("gelu", 3, 3), ("fewer_activations", 3, 1), ("fewer_norms", 1, 1), ("layer_norm", 1, 1)],
    )
    def test_norms_and_activations_of_a_block(self, step: str, norms: int, activations: int) -> None:
        """Of the second block of a stage, which has no convolution in its shortcut."""
        block = on_meta(f"convnext_roadmap_{step}").get_submodule("stages.1.1")
        kinds = [type(module) for module in block.modules()]
        kind = nn.BatchNorm2d if step != "layer_norm" else roadmap.ChannelLayerNorm
        assert kinds.count(kind) == norms and kinds.count(nn.GELU) == activations

    @pytest.mark.parametrize("step", roadmap.STEPS)
    def test_every_step_computes(self, step: str) -> None:
        torch.manual_seed(0)
        network = create(f"convnext_roadmap_{step}", width=8, depths=(1, 2), classes=10)
        with torch.no_grad():
            logits = network(torch.randn(2, 3, 32, 32))
        assert logits.shape == (2, 10) and bool(logits.isfinite().all()) and logits.std() > 0

    def test_published_weights_of_resnet_50_compute_what_they_did(self, tmp_path: Path) -> None:
        """Torchvision's keys, evaluated as they are named, give the network's outputs."""
        config = replace(roadmap.RESNET_50, width=8, depths=(2, 1, 1, 1), classes=10)
        entry = Entry(
            "tiny", lambda: roadmap.Roadmap(config), ("logits",), PREPROCESSING, RESNET_KEY_MAPS, "these tests"
        )
        stored = resnet_weights(config)
        network, keys = load(entry, stored, tmp_path / "weights.pth")
        assert keys == "torchvision"
        image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(
                network.eval()(image), evaluate_resnet(stored, image, config), rtol=1e-4, atol=1e-4
            )


def resnet_weights(config: roadmap.Config) -> State:
    """Random weights of a bottleneck ResNet under torchvision's keys."""
    generator = torch.Generator().manual_seed(2)
    weights: State = {}

    def conv(name: str, *shape: int) -> None:
        scale = (shape[1] * shape[2] * shape[3]) ** -0.5
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * scale

    def norm(name: str, channels: int) -> None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.{leaf}"] = torch.rand(channels, generator=generator) + 0.5

    conv("conv1", config.width, 3, 7, 7)
    norm("bn1", config.width)
    channels = config.width
    for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True), 1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            for index, shape in enumerate([(width, channels, 1), (width, width, 3), (4 * width, width, 1)], 1):
                conv(f"{name}.conv{index}", *shape, shape[-1])
                norm(f"{name}.bn{index}", shape[0])
            if block == 0:
                conv(f"{name}.downsample.0", 4 * width, channels, 1, 1)
                norm(f"{name}.downsample.1", 4 * width)
            channels = 4 * width
    weights["fc.weight"] = torch.randn(config.classes, channels, generator=generator)
    weights["fc.bias"] = torch.randn(config.classes, generator=generator)
    return weights


def evaluate_resnet(weights: State, image: Tensor, config: roadmap.Config) -> Tensor:
    """ResNet v1.5: the stride is in the 3x3 convolution."""

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = weights[f"{conv}.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        return functional.batch_norm(x, mean, var, weights[f"{norm}.weight"], weights[f"{norm}.bias"])

    x = functional.max_pool2d(conv_norm(image, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for stage, depth in enumerate(config.depths, 1):
        for block in range(depth):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = conv_norm(x, f"{name}.conv1", f"{name}.bn1").relu()
            y = conv_norm(y, f"{name}.conv2", f"{name}.bn2", stride).relu()
            y = conv_norm(y, f"{name}.conv3", f"{name}.bn3")
            shortcut = conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride) if block == 0 else x
            x = (y + shortcut).relu()
    return functional.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])
