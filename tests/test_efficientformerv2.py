"""EfficientFormerV2 is the paper's: sizes to the last parameter, its function against an independent evaluation, and
the authors' and timm's checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.errors import InputError
from edge.models import Entry, checkpoints, counts, create, find
from edge.models.efficientformerv2 import PREPROCESSING, VARIANTS, Config, EfficientFormerV2
from edge.models.efficientformerv2_keys import KEY_MAPS

INPUT = (1, 3, 224, 224)

# parameters, without the distillation head, folded with the heads averaged, MACs, tensors of a checkpoint
TABLE = {
    "s0": (3_600_256, 3_423_256, 3_371_960, 395_892_544, 568),
    "s1": (6_185_560, 5_960_560, 5_886_296, 651_969_640, 722),
    "s2": (12_710_112, 12_421_112, 12_293_176, 1_246_863_952, 1054),
    "l": (26_322_288, 25_937_288, 25_730_088, 2_552_546_880, 1386),
}

TINY = Config((16, 16, 24, 32), ((2,), (2,), (2, 3), (3, 2)), (1, 1), size=64, classes=10)


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create(name, **options)


@pytest.mark.parametrize("variant", TABLE)
def test_counts_are_the_papers(variant: str) -> None:
    network = on_meta(f"efficientformerv2_{variant}")
    one_head = on_meta(f"efficientformerv2_{variant}", distilled=False)
    # Beside the norms behind convolutions, the last norm and the layer scales disappear.
    scales = sum(p.numel() for name, p in one_head.named_parameters() if name.endswith("layer_scale"))
    last_norm = sum(p.numel() for p in one_head.get_submodule("norm").parameters())
    assert (
        counts.parameters(network),
        counts.parameters(one_head),
        counts.parameters_folded(one_head, INPUT) - scales - last_norm,
        counts.macs(network, INPUT),
        len(network.state_dict()),
    ) == TABLE[variant]


def randomise(network: nn.Module) -> nn.Module:
    """Values of a network's usual order, in float64, no two tensors equal."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                low = 0.5 if name.endswith("running_var") else -0.5
                value.uniform_(low, low + 1, generator=generator)
            else:
                value.random_(1, 1000, generator=generator)
    return network.double().eval()


class Paper:
    """The network on its weights in plain functions, attention position by position."""

    def __init__(self, network: EfficientFormerV2) -> None:
        self.weights, self.config = network.state_dict(), network.config

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        return functional.conv2d(x, weight, self.weights[f"{name}.bias"], stride, weight.shape[-1] // 2, 1, groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, gamma, beta = (
            self.weights[f"{name}.{kind}"].reshape(1, -1, 1, 1)
            for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gamma + beta

    def conv_norm(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        return self.norm(self.conv(x, f"{name}.conv", stride), f"{name}.norm")

    @staticmethod
    def gelu(x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))

    def feed_forward(self, x: Tensor, name: str) -> Tensor:
        hidden = self.gelu(self.conv_norm(x, f"{name}.expand"))
        return self.conv_norm(self.gelu(self.conv_norm(hidden, f"{name}.mix")), f"{name}.project")

    def scores(self, query: Tensor, key: Tensor, name: str) -> Tensor:
        """(heads, Q², K²): dot products over a head's channels, scaled, plus the bias of the two positions' offset."""
        heads, wide, narrow = 8, key.shape[-1], query.shape[-1]
        query, key = (x[0].reshape(heads, -1, x.shape[2] * x.shape[3]) for x in (query, key))
        scale = query.shape[1] ** -0.5
        numbers: list[tuple[int, int]] = []
        bias = torch.empty(heads, narrow**2, wide**2, dtype=torch.float64)
        for q in range(narrow**2):
            for k in range(wide**2):
                rows = abs(q // narrow * (wide // narrow) - k // wide)
                columns = abs(q % narrow * (wide // narrow) - k % wide)
                if (rows, columns) not in numbers:
                    numbers.append((rows, columns))
                bias[:, q, k] = self.weights[f"{name}.bias.values"][:, numbers.index((rows, columns))]
        return torch.einsum("hdq,hdk->hqk", query, key) * scale + bias

    def talk(self, x: Tensor, name: str) -> Tensor:
        """Every head a mixture of all heads, (heads, Q², K²) to the same shape."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return torch.einsum("gh,hqk->gqk", weight[:, :, 0, 0], x) + bias[:, None, None]

    def attend(self, weights: Tensor, value: Tensor) -> Tensor:
        """(heads, Q², K²) and the values (1, heads · d, K, K) to (1, heads · d, Q, Q)."""
        side = round(weights.shape[1] ** 0.5)
        values = value[0].reshape(8, -1, value.shape[2] * value.shape[3])
        return torch.einsum("hqk,hdk->hdq", weights, values).reshape(1, -1, side, side)

    def attention(self, x: Tensor, name: str) -> Tensor:
        halved = f"{name}.reduce.conv.weight" in self.weights
        y = self.conv_norm(x, f"{name}.reduce", 2) if halved else x
        query, key, value = (self.conv_norm(y, f"{name}.{part}") for part in ("query", "key", "value"))
        scores = self.talk(self.scores(query, key, name), f"{name}.talk_before")
        weights = self.talk(scores.softmax(-1), f"{name}.talk_after")
        out = self.attend(weights, value) + self.conv_norm(value, f"{name}.local")
        if halved:
            out = functional.interpolate(out, scale_factor=2, mode="bilinear", align_corners=False)
        return self.conv_norm(self.gelu(out), f"{name}.project")

    def downsample(self, x: Tensor, name: str) -> Tensor:
        query = self.conv_norm(self.conv(x, f"{name}.query_local", 2) + x[:, :, ::2, ::2], f"{name}.query")
        key, value = self.conv_norm(x, f"{name}.key"), self.conv_norm(x, f"{name}.value")
        weights = self.scores(query, key, name).softmax(-1)
        out = self.attend(weights, value) + self.conv_norm(value, f"{name}.local", 2)
        return self.conv_norm(self.gelu(out), f"{name}.project")

    def __call__(self, image: Tensor) -> Tensor:
        x = self.gelu(self.conv_norm(self.gelu(self.conv_norm(image, "stem.0", 2)), "stem.2", 2))
        for stage, expansions in enumerate(self.config.expansions):
            if stage in (1, 2):
                x = self.conv_norm(x, f"downsamples.{stage - 1}", 2)
            elif stage == 3:
                name = "downsamples.2"
                x = self.conv_norm(x, f"{name}.direct", 2) + self.downsample(x, f"{name}.attention")
            attending = (0, 0, *self.config.attention)[stage]
            for block in range(len(expansions)):
                branches = ["feed_forward"]
                if block >= len(expansions) - attending:
                    branches.insert(0, "attention")
                for branch in branches:
                    name = f"stages.{stage}.{block}.{branch}"
                    scale = self.weights[f"{name}.layer_scale"].reshape(1, -1, 1, 1)
                    x = x + scale * getattr(self, branch)(x, f"{name}.branch")
        features = self.norm(x, "norm").mean((2, 3))
        heads = [n for n in ("classifier", "distillation_classifier") if f"{n}.weight" in self.weights]
        logits = [features @ self.weights[f"{n}.weight"].T + self.weights[f"{n}.bias"] for n in heads]
        return sum(logits) / len(logits)


@pytest.mark.parametrize("distilled", [True, False])
def test_the_function_is_the_papers(distilled: bool) -> None:
    network = randomise(EfficientFormerV2(replace(TINY, distilled=distilled)))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), Paper(network)(image), rtol=1e-10, atol=1e-10)


def test_an_image_of_another_size_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"96×64 pixels, .* attention biases .* built for, 64×64") as caught:
        EfficientFormerV2(TINY)(torch.zeros(1, 3, 96, 64))
    assert "size=64" in caught.value.next_step
    with pytest.raises(ValueError, match="multiple of 32"):
        replace(TINY, size=100)


def test_batches_are_as_single_images() -> None:
    network = randomise(EfficientFormerV2(TINY))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), torch.cat([network(image[None]) for image in images]))


# Names inside a block and inside the downsampling attention, from the sources, not from the rules under test. A pair of
# a convolution and its norm is two numbers to the authors and "conv" and "bn" to timm.
FEED_FORWARD = {"expand": ("fc1", "norm1"), "mix": ("mid", "mid_norm"), "project": ("fc2", "norm2")}
MIXER = {"query": "q", "key": "k", "value": "v", "local": "v_local"}
TALKING_HEADS = {"talk_before": "talking_head1", "talk_after": "talking_head2"}

Row = tuple[str, str, str]


def pair(ours: str, authors: tuple[str, str], timm: str) -> Iterator[Row]:
    yield f"{ours}.conv", authors[0], f"{timm}.conv"
    yield f"{ours}.norm", authors[1], f"{timm}.bn"


def numbered(ours: str, authors: str, timm: str, first: int = 0) -> Iterator[Row]:
    yield from pair(ours, (f"{authors}.{first}", f"{authors}.{first + 1}"), timm)


def of_attention(ours: str, authors: str, timm: str) -> Iterator[Row]:
    yield f"{ours}.layer_scale", f"{authors}.layer_scale_1", f"{timm}.ls1.gamma"
    ours, authors, timm = f"{ours}.branch", f"{authors}.token_mixer", f"{timm}.token_mixer"
    yield f"{ours}.bias.values", f"{authors}.attention_biases", f"{timm}.attention_biases"
    for mine, theirs in ({"reduce": "stride_conv"} | MIXER).items():
        yield from numbered(f"{ours}.{mine}", f"{authors}.{theirs}", f"{timm}.{theirs}")
    yield from numbered(f"{ours}.project", f"{authors}.proj", f"{timm}.proj", 1)
    for mine, theirs in TALKING_HEADS.items():
        yield f"{ours}.{mine}", f"{authors}.{theirs}", f"{timm}.{theirs}"


def of_stage(stage: int, blocks: int) -> Iterator[Row]:
    for block in range(blocks):
        ours, authors, timm = (
            f"stages.{stage}.{block}",
            f"network.{2 * stage}.{block}",
            f"stages.{stage}.blocks.{block}",
        )
        for mine, (conv, norm) in FEED_FORWARD.items():
            both = (f"{authors}.mlp.{conv}", f"{authors}.mlp.{norm}")
            yield from pair(f"{ours}.feed_forward.branch.{mine}", both, f"{timm}.mlp.{conv}")
        yield f"{ours}.feed_forward.layer_scale", f"{authors}.layer_scale_2", f"{timm}.ls2.gamma"
        if stage > 1:
            yield from of_attention(f"{ours}.attention", authors, timm)


def of_downsamples() -> Iterator[Row]:
    for number, authors in enumerate(("network.1", "network.3")):
        timm = f"stages.{number + 1}.downsample.conv"
        yield from pair(f"downsamples.{number}", (f"{authors}.proj", f"{authors}.norm"), timm)
    yield from pair("downsamples.2.direct", ("network.5.conv", "network.5.bn"), "stages.3.downsample.conv")
    ours, authors, timm = "downsamples.2.attention", "network.5.attn", "stages.3.downsample.attn"
    yield f"{ours}.bias.values", f"{authors}.attention_biases", f"{timm}.attention_biases"
    yield f"{ours}.query_local", f"{authors}.q.local.0", f"{timm}.q.local"
    for mine, theirs in (MIXER | {"query": "q.proj"}).items():
        yield from numbered(f"{ours}.{mine}", f"{authors}.{theirs}", f"{timm}.{theirs}")
    yield from numbered(f"{ours}.project", f"{authors}.proj", f"{timm}.proj", 1)


def names(config: Config) -> Iterator[Row]:
    """Every module's and lone parameter's name: ours, the authors', timm's. Some blocks have no attention."""
    yield from numbered("stem.0", "patch_embed", "stem.conv1")
    yield from numbered("stem.2", "patch_embed", "stem.conv2", 3)
    for stage, expansions in enumerate(config.expansions):
        yield from of_stage(stage, len(expansions))
    yield from of_downsamples()
    yield "norm", "norm", "norm"
    yield "classifier", "head", "head"
    yield "distillation_classifier", "dist_head", "head_dist"


def as_written_by(writer: str, network: EfficientFormerV2) -> dict[str, Tensor]:
    """A network's weights under another's keys, in another's shapes."""
    table = {row[0]: row[("edge", "authors", "timm").index(writer)] for row in names(network.config)}
    stored: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if name in table:  # a parameter that is no layer's weight or bias
            as_authors = writer == "authors" and name.endswith("layer_scale")
            stored[table[name]] = value[:, None, None] if as_authors else value
        else:
            module, _, leaf = name.rpartition(".")
            stored[f"{table[module]}.{leaf}"] = value
    if writer == "authors":
        for name, buffer in network.named_buffers():
            if name.endswith(".offsets"):
                biases = table[f"{name.removesuffix('offsets')}values"]
                stored[biases.replace("attention_biases", "attention_bias_idxs")] = buffer
    return stored


@pytest.mark.parametrize("writer", ["edge", "authors", "timm"])
@pytest.mark.parametrize("distilled", [True, False])
def test_every_writers_checkpoint_loads(writer: str, distilled: bool, tmp_path: Path) -> None:
    config = replace(TINY, distilled=distilled)
    entry = Entry("tiny", lambda: EfficientFormerV2(config), ("logits",), PREPROCESSING, KEY_MAPS, "these tests")
    trained = randomise(EfficientFormerV2(config)).float()
    torch.save({"model": as_written_by(writer, trained)}, tmp_path / "weights.pth")
    network = entry.build()
    applied = checkpoints.apply(entry, network, checkpoints.load(tmp_path / "weights.pth"), tmp_path / "weights.pth")
    assert applied.keys == writer
    want, got = trained.state_dict(), network.state_dict()
    assert [name for name in want if not torch.equal(got[name], want[name])] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_authors_and_timms_files_have_all_of_a_variants_keys(variant: str) -> None:
    network = on_meta(f"efficientformerv2_{variant}")
    for writer in ("authors", "timm"):
        stored = as_written_by(writer, network)
        assert all(KEY_MAPS[other](stored) is None for other in KEY_MAPS if other != writer), "mistaken for another's"
        mapped = KEY_MAPS[writer](stored)
        assert mapped is not None
        assert {n: t.shape for n, t in mapped.items()} == {n: t.shape for n, t in network.state_dict().items()}


def test_every_entry_says_how_its_images_are_made() -> None:
    preprocessing = find("efficientformerv2_s0").preprocessing
    assert (preprocessing.size, preprocessing.crop) == (224, 0.95)
