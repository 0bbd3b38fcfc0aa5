"""Shift-wise networks are the paper's: their tables, their sizes, the operator's formulas; and merged they stay so."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from shiftwise_tables import PUBLISHED, draw
from torch import Tensor, nn
from torch.nn import functional

from conftest import settle_batch_norm
from edge.errors import ExportError, InputError
from edge.lowering import lower
from edge.models import Entry, checkpoints, counts, create, find
from edge.models.seeded import seed_weights
from edge.models.shiftwise import PREPROCESSING, Block, Config, Shiftwise, ShiftwiseConv
from edge.models.shiftwise_keys import KEY_MAPS
from edge.models.shiftwise_merged import Form, Merged, RelativeResponse, Shifts, Strips
from edge.models.shiftwise_tables import FILE, Tables, published

INPUT = (1, 3, 224, 224)
NARROW = Config((8, 12, 16, 20), (1, 1, 2, 1), (19, 17, 16, 5), classes=10)
"""Long and short strips, symmetric and not, longer than the images and shorter."""
FORMS: tuple[Form, ...] = ("strips", "shifts")


def narrow(**options: object) -> Shiftwise:
    network = Shiftwise(Config(**{**vars(NARROW), **options}), draw).eval()
    seed_weights(network)
    settle_batch_norm(network, torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(2)))
    return network


class TestTables:
    @pytest.mark.parametrize(
        ("stage", "ghosts", "shifts", "identity"),
        [
            ((80, 51), (4, 8, 9, 23, 29, 31, 37, 43), (14, -13, 5, 5, -19, -19, 11, 17), (0, 12, 4, 13)),
            ((160, 49), (4, 7, 8, 13, 20, 23, 24, 28), (13, 7, 13, -5, -11, 19, -8, 19), (10, 11, 14, 15)),
            ((320, 47), (11, 12, 19, 20, 22, 26, 29, 30), (12, 21, -24, 18, 0, 9, -6, -9), (3, 4, 3, 2)),
            ((640, 13), (5, 9, 11, 13, 31, 33, 34, 35), (1, -2, -8, -8, -8, -5, -2, -5), (0, 3, 1, 0)),
        ],
    )
    def test_begin_as_the_authors_do(
        self, stage: tuple[int, int], ghosts: tuple[int, ...], shifts: tuple[int, ...], identity: tuple[int, ...]
    ) -> None:
        tables = published(*stage)
        assert tables.ghosts[:8] == ghosts
        assert tuple(pads(tables)[0]) == shifts
        assert tuple(tables.identity[:, 0].tolist()) == identity

    @pytest.mark.parametrize("stage", PUBLISHED)
    def test_are_what_the_seeds_give_to_the_last_digit(self, stage: tuple[int, int]) -> None:
        frozen, drawn = published(*stage), draw(*stage)
        assert frozen.ghosts == drawn.ghosts and len(frozen.rep) + len(frozen.ghosts) == stage[0]
        assert all(torch.equal(getattr(frozen, name), getattr(drawn, name)) for name in ("across", "down", "identity"))

    def test_hold_the_published_networks_and_no_more(self) -> None:
        assert set(json.loads(FILE.read_text())) == {f"{channels} {kernel}" for channels, kernel in PUBLISHED}
        with pytest.raises(ValueError, match="no published tables for 80 channels and kernel 31; there are: 80 51"):
            published(80, 31)


@pytest.mark.parametrize(
    ("name", "paths", "keys", "parameters", "macs"),
    [
        ("sw_tiny", 2, 1023, 31_790_260, 5_335_558_264),
        ("sw_tiny", 1, 996, 31_002_670, 5_023_901_692),
        ("sw_small", 2, 1356, 57_312_892, 9_804_918_900),
        ("sw_small", 1, 1320, 55_990_108, 9_334_354_746),
    ],
)
def test_counts_are_the_papers_as_trained_and_with_one_path(
    name: str, paths: int, keys: int, parameters: int, macs: int
) -> None:
    with torch.device("meta"):
        network = create(name, paths=paths)
    assert len(network.state_dict()) == keys
    assert (counts.parameters(network), counts.macs(network, INPUT)) == (parameters, macs)


def pads(tables: Tables) -> np.ndarray:
    """The authors' table of shifts: (rep channels · n, 2 · groups)."""
    places = torch.cat([tables.across, tables.down]).flatten(1).T.numpy()
    return tables.kernel // 2 - 3 * places - 2


def formulas(conv: ShiftwiseConv, x: Tensor) -> Tensor:
    """The operator by its definition, one value of one filter at a time; x is (C, H, W)."""
    tables, (_, height, width) = conv.tables, x.shape
    rep, count, shifts = len(tables.rep), tables.filters, pads(tables)
    filters = sum(path.get_parameter("weight") for path in conv.paths).numpy()[:, 0]
    padded = np.pad(x[list(tables.rep)].numpy(), ((0, 0), (2, 2), (2, 2)))
    y = np.zeros((rep * count, height + 2, width + 2))
    for c, i, j in np.ndindex(*y.shape):
        y[c, i, j] = (filters[c] * padded[c // count, i : i + 3, j : j + 3]).sum()

    def at(c: int, i: int, j: int) -> float:
        return y[c, i, j] if 0 <= i < height + 2 and 0 <= j < width + 2 else 0.0

    across, down, middle = (np.zeros((rep, height, width)) for _ in range(3))
    for o, i, j in np.ndindex(*across.shape):
        for c in range(o * count, (o + 1) * count):
            across[o, i, j] += sum(at(c, i + 1, j - shift) for shift in shifts[c, :4])
            down[o, i, j] += sum(at(c, i - shift, j + 1) for shift in shifts[c, 4:])
        middle[o, i, j] = sum(at(o * count + int(index), i + 1, j + 1) for index in tables.identity[:, o])
    parts = zip((conv.norm_across, conv.norm_down, conv.norm_middle), (across, down, middle), strict=True)
    total = sum(normed(norm, torch.from_numpy(part)[None])[0] for norm, part in parts)
    return torch.cat([total + x[list(tables.rep)], x[list(tables.ghosts)]])


def normed(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, var, gamma, beta = (
        value.reshape(1, -1, 1, 1) for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + 1e-5).sqrt() * gamma + beta


def randomised(module: nn.Module) -> nn.Module:
    """In float64, every value different, a third of the filters zero as sparse training leaves them."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.double().eval().state_dict().items():
        if value.is_floating_point():
            low = 0.5 if name.endswith("running_var") else -0.5
            value.uniform_(low, low + 1, generator=generator)
    for name, value in module.named_parameters():
        if ".paths." in f".{name}":
            value.data[torch.rand(len(value), generator=torch.Generator().manual_seed(1)) < 0.33] = 0
    return module


@pytest.mark.parametrize("stage", [(8, 13), (7, 16), (6, 19)], ids=lambda stage: f"K {stage[1]}")
@torch.no_grad()
def test_the_operator_is_its_formulas(stage: tuple[int, int]) -> None:
    conv = randomised(ShiftwiseConv(draw(*stage), paths=2))
    x = torch.randn(2, stage[0], 5, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(conv(x), torch.stack([formulas(conv, image) for image in x]), rtol=1e-12, atol=1e-12)


def evaluate(network: Shiftwise, image: Tensor) -> Tensor:
    """The paper's network in plain functions, the operator by its module; logits."""
    weights = network.state_dict()

    def layer_norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        scale, shift = (weights[f"{name}.{kind}"].reshape(1, -1, 1, 1) for kind in ("weight", "bias"))
        return centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt() * scale + shift

    def convolved(x: Tensor, name: str, **options: int) -> Tensor:
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    def gelu(x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))

    x = gelu(layer_norm(convolved(image, "embedding.0", stride=2, padding=1), "embedding.1"))
    x = layer_norm(convolved(x, "embedding.3", stride=2, padding=1), "embedding.4")
    for stage, blocks in enumerate(network.stages):
        if stage:
            x = layer_norm(convolved(x, f"mergings.{stage - 1}.0", stride=2, padding=1), f"mergings.{stage - 1}.1")
        for index, block in enumerate(blocks):
            name = f"stages.{stage}.{index}"
            y = normed(block.norm, block.shiftwise(x))
            pooled = convolved(y.mean((2, 3), keepdim=True), f"{name}.excitation.down").clamp(min=0)
            y = y / (1 + (-convolved(pooled, f"{name}.excitation.up")).exp())
            y = torch.einsum("oc,nchw->nohw", weights[f"{name}.expand.weight"], y)
            y = gelu(y + weights[f"{name}.expand.bias"].reshape(1, -1, 1, 1))
            norm = y.square().sum((2, 3), keepdim=True).sqrt()
            gamma, beta = (weights[f"{name}.response_norm.{kind}"].reshape(1, -1, 1, 1) for kind in ("scale", "shift"))
            y = (gamma * norm / (norm.mean(1, keepdim=True) + 1e-6) + 1) * y + beta
            y = normed(block.project_norm, torch.einsum("oc,nchw->nohw", weights[f"{name}.project.weight"], y))
            x = x + weights[f"{name}.layer_scale"].reshape(1, -1, 1, 1) * y
    features = layer_norm(x.mean((2, 3))[..., None, None], "norm").flatten(1)
    return features @ weights["classifier.weight"].T + weights["classifier.bias"]


@torch.no_grad()
def test_the_function_is_the_papers() -> None:
    network = randomised(narrow())
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(network(image), evaluate(network, image), rtol=1e-10, atol=1e-10)


def test_the_images_are_made_as_the_authors_make_them() -> None:
    preprocessing = find("sw_tiny").preprocessing
    assert (preprocessing.size, preprocessing.crop) == (224, 0.875)


class TestMerging:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("stage", [(8, 13), (7, 16), (6, 19)], ids=lambda stage: f"K {stage[1]}")
    @torch.no_grad()
    def test_a_merged_block_computes_the_same(self, stage: tuple[int, int], form: Form) -> None:
        block = randomised(Block(draw(*stage), Config((), (), form=form)))
        before = {name: value.clone() for name, value in block.state_dict().items()}
        merged = block.reparameterize()
        x = torch.randn(2, stage[0], 7, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        torch.testing.assert_close(merged(x), block(x), rtol=1e-12, atol=1e-12)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
        assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())

    @torch.no_grad()
    def test_strips_are_two_depthwise_convolutions_of_all_channels(self) -> None:
        """Of K 16 the strip reaches from -8 to 9, and gets one tap of zero."""
        merged = randomised(Block(draw(8, 16), Config((), ()))).reparameterize()
        assert isinstance(merged.cross, Strips)
        across, down = merged.cross.across, merged.cross.down
        assert across.weight.shape == (8, 1, 3, 19) and down.weight.shape == (8, 1, 19, 3)
        assert not across.weight[..., 0].any() and across.weight[..., 1].any() and across.weight[..., -1].any()
        assert across.bias is not None and down.bias is None
        ghosts = list(draw(8, 16).ghosts)
        assert (across.weight[ghosts] != 0).sum((1, 2, 3)).tolist() == [1] * len(ghosts)
        assert not down.weight[ghosts].any()

    @torch.no_grad()
    def test_filters_that_are_zero_are_dropped(self) -> None:
        """The channel that has the most keeps 4 of 6; the others share one of zeros."""
        block = randomised(Block(draw(8, 16), Config((), (), form="shifts")))
        for path in block.shiftwise.paths:
            filters = path.get_parameter("weight").unflatten(0, (-1, 6))
            filters[:] = 1
            filters[:, [1, 4]] = filters[2, [0]] = 0
        merged = block.reparameterize()
        assert isinstance(merged.cross, Shifts)
        assert merged.cross.small.weight.shape[0] == 5 * len(block.shiftwise.tables.rep)
        x = torch.randn(1, 8, 7, 12, dtype=torch.float64)
        torch.testing.assert_close(merged(x), block(x), rtol=1e-12, atol=1e-12)

    @torch.no_grad()
    def test_the_response_keeps_to_the_size_of_its_values(self) -> None:
        block = Block(draw(8, 13), Config((), ()))
        block.response_norm.scale.uniform_(-0.5, 0.5)
        x = 100 * torch.randn(1, 32, 56, 56).half()
        norm = RelativeResponse(block.response_norm).half()
        assert (x.square().sum((2, 3))).isinf().all() and norm(x / 10).isfinite().all()

    def test_a_network_is_merged_before_anything_else_and_proven(self) -> None:
        outcomes = lower(narrow(), torch.randn(2, 3, 64, 64)).outcomes
        assert outcomes[0].name == "reparameterisation" and outcomes[0].matches == 5
        assert outcomes[0].proof_db is not None and outcomes[0].proof_db > 250

    @pytest.mark.parametrize(
        "fault", ["a path is forgotten", "two channels are swapped", "the shift of a norm is lost"]
    )
    @torch.no_grad()
    def test_a_wrong_merge_is_caught_by_its_proof(self, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
        network = narrow()

        def wrong(block: Block) -> nn.Module:
            merged = Merged(block, "strips")
            if fault == "a path is forgotten":
                twin = Block(block.shiftwise.tables, Config((), (), paths=1)).double()
                twin.load_state_dict(block.state_dict(), strict=False)
                merged = Merged(twin, "strips")
            if fault == "two channels are swapped":
                weight = merged.expand.weight.data
                weight[:, [0, 1]] = weight[:, [1, 0]]
            if fault == "the shift of a norm is lost":
                merged.project.bias = None
            return merged

        monkeypatch.setattr(Block, "reparameterize", wrong)
        with pytest.raises(ExportError, match="reparameterisation changed the network"):
            lower(network, torch.randn(2, 3, 64, 64))


THEIRS = (
    (r"embedding\.(\d)\.(.*)", r"downsample_layers.0.\1.\2"),
    (r"mergings\.0\.(.*)", r"downsample_layers.1.\1"),
    (r"mergings\.1\.(.*)", r"downsample_layers.2.\1"),
    (r"mergings\.2\.(.*)", r"downsample_layers.3.\1"),
    (r"(stages\.\d\.\d+)\.shiftwise\.paths\.(.*)", r"\1.large_kernel.LoRAs.\2"),
    (r"(stages\.\d\.\d+)\.shiftwise\.norm_across\.(.*)", r"\1.large_kernel.bn_lora1.\2"),
    (r"(stages\.\d\.\d+)\.shiftwise\.norm_down\.(.*)", r"\1.large_kernel.bn_lora2.\2"),
    (r"(stages\.\d\.\d+)\.shiftwise\.norm_middle\.(.*)", r"\1.large_kernel.bn_small.\2"),
    (r"(stages\.\d\.\d+)\.excitation\.(.*)", r"\1.se.\2"),
    (r"(stages\.\d\.\d+)\.expand\.(.*)", r"\1.pwconv1.1.\2"),
    (r"(stages\.\d\.\d+)\.response_norm\.scale", r"\1.act.1.gamma"),
    (r"(stages\.\d\.\d+)\.response_norm\.shift", r"\1.act.1.beta"),
    (r"(stages\.\d\.\d+)\.project\.(.*)", r"\1.pwconv2.0.\2"),
    (r"(stages\.\d\.\d+)\.project_norm\.(.*)", r"\1.pwconv2.2.\2"),
    (r"(stages\.\d\.\d+)\.layer_scale", r"\1.gamma"),
    (r"classifier\.(.*)", r"head.\1"),
)
"""Our names and the authors'; from the description of their file, not from the rules under test."""


def as_the_authors_write(state: dict[str, Tensor]) -> dict[str, Tensor]:
    written = {}
    for name, value in state.items():
        theirs = next((re.sub(ours, key, name) for ours, key in THEIRS if re.fullmatch(ours, name)), name)
        written[theirs] = value.reshape(1, 1, 1, -1) if ".act.1." in theirs else value
    return written


class TestCheckpoints:
    ENTRY = Entry("narrow", lambda: Shiftwise(NARROW, draw), ("logits",), PREPROCESSING, KEY_MAPS, "these tests")

    def load(self, content: object, path: Path) -> tuple[Shiftwise, str]:
        torch.save(content, path)
        network = Shiftwise(NARROW, draw).eval()
        return network, checkpoints.apply(self.ENTRY, network, checkpoints.load(path), path).keys

    def test_the_authors_container_and_keys(self, tmp_path: Path) -> None:
        state = narrow().state_dict()
        container = {"model": as_the_authors_write(state), "epoch": 299, "args": argparse.Namespace(lr=4e-3)}
        network, keys = self.load(container, tmp_path / "trained.pth")
        assert keys == "authors"
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())

    def test_our_own_keys(self, tmp_path: Path) -> None:
        state = narrow().state_dict()
        network, keys = self.load(state, tmp_path / "ours.pth")
        assert keys == "edge" and all(torch.equal(v, state[name]) for name, v in network.state_dict().items())

    @torch.no_grad()
    def test_a_checkpoint_that_the_authors_merged(self, tmp_path: Path) -> None:
        trained = narrow()
        state = as_the_authors_write(trained.state_dict())
        for key in [key for key in state if ".LoRAs.0." in key]:
            others = state.pop(key.replace(".LoRAs.0.", ".LoRAs.1."))
            state[key.replace("LoRAs.0", "LoRA")] = state.pop(key) + others
        network, keys = self.load({"model": state}, tmp_path / "merged.pth")
        image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
        assert keys == "authors"
        torch.testing.assert_close(network.double()(image), trained.double()(image), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(("paths", "keys"), [(2, 1023), (1, 996)])
    def test_every_key_of_the_published_file_has_a_place(self, paths: int, keys: int) -> None:
        with torch.device("meta"):
            trained, written = create("sw_tiny"), as_the_authors_write(create("sw_tiny", paths=paths).state_dict())
        if paths == 1:
            written = {key.replace("LoRAs.0", "LoRA"): value for key, value in written.items()}
        assert len(written) == keys
        mapped = KEY_MAPS["authors"](written)
        assert mapped is not None
        assert {name: value.shape for name, value in mapped.items()} == {
            name: value.shape for name, value in trained.state_dict().items()
        }

    def test_a_path_too_few_is_refused(self, tmp_path: Path) -> None:
        state = as_the_authors_write(narrow().state_dict())
        del state["stages.2.1.large_kernel.LoRAs.1.weight"]
        with pytest.raises(InputError, match=r"missing: stages\.2\.1\.shiftwise\.paths\.1\.weight"):
            self.load({"model": state}, tmp_path / "damaged.pth")
