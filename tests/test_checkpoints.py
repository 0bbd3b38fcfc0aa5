"""Checkpoints of three kinds load into the same network; all else is refused with the tensor named, and never run."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edge.errors import ExitCode, InputError
from edge.models import Entry, checkpoints, create, find
from edge.models.fasternet import PREPROCESSING, Config, FasterNet, FasterNetPyramid
from edge.models.fasternet_keys import KEY_MAPS

State = dict[str, Tensor]

CONFIG = Config(16, (1, 1, 2, 1), "gelu", head_width=24, classes=10)


def tiny(**options: Any) -> FasterNet:
    return FasterNet(Config(**{**vars(CONFIG), **options})).eval()


def tiny_pyramid(**options: Any) -> FasterNetPyramid:
    return FasterNetPyramid(Config(**{**vars(CONFIG), **options})).eval()


TINY = Entry("tiny", tiny, ("logits",), PREPROCESSING, KEY_MAPS, "these tests")
TINY_PYRAMID = Entry("tiny_pyramid", tiny_pyramid, ("f0", "f1", "f2", "f3"), PREPROCESSING, KEY_MAPS, "these tests")


def randomise(network: nn.Module) -> State:
    """No two tensors equal, so that a wrong name shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.1, 1, generator=generator)
            else:
                value.random_(1, 1000, generator=generator)
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture
def ours() -> State:
    return randomise(tiny())


def names(depths: tuple[int, ...], pyramid: bool = False, layer_scale: bool = False) -> Iterator[tuple[str, str, str]]:
    """Every module's name: ours, the authors', timm's; from the three sources, not from the rules under test."""
    yield "embedding.conv", "patch_embed.proj", "patch_embed.proj"
    yield "embedding.norm", "patch_embed.norm", "patch_embed.norm"
    for stage, depth in enumerate(depths):
        if stage:
            mine, theirs, timms = f"mergings.{stage - 1}", f"stages.{2 * stage - 1}", f"stages.{stage}.downsample"
            yield f"{mine}.conv", f"{theirs}.reduction", f"{timms}.reduction"
            yield f"{mine}.norm", f"{theirs}.norm", f"{timms}.norm"
        for block in range(depth):
            mine = f"stages.{stage}.{block}"
            others = (f"stages.{2 * stage}.blocks.{block}", f"stages.{stage}.blocks.{block}")
            inside = {
                "partial.conv": "spatial_mixing.partial_conv3",
                "expand": "mlp.0",
                "norm": "mlp.1",
                "project": "mlp.3",
            }
            for name, their_name in inside.items():
                yield f"{mine}.{name}", f"{others[0]}.{their_name}", f"{others[1]}.{their_name}"
            if layer_scale:
                yield mine, others[0], others[1]  # a parameter of the block itself
    if pyramid:
        for stage in range(len(depths)):
            yield f"norms.{stage}", f"norm{2 * stage}", ""
    else:
        yield "head", "avgpool_pre_head.1", "conv_head"
        yield "classifier", "head", "classifier"


def as_written_by(writer: str, state: State, depths: tuple[int, ...] = CONFIG.depths, **kind: bool) -> State:
    """The same weights under another's keys."""
    column = {"edge": 0, "authors": 1, "timm": 2}[writer]
    table = {row[0]: row[column] for row in names(depths, **kind)}
    return {f"{table[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value for name, value in state.items()}


def write(state: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def load(path: Path, entry: Entry = TINY, **options: Any) -> tuple[nn.Module, checkpoints.Applied]:
    network = entry.build(**options)
    return network, checkpoints.apply(entry, network, checkpoints.load(path), path)


def assert_same(network: nn.Module, state: State) -> None:
    got = network.state_dict()
    assert got.keys() == state.keys()
    assert [name for name in state if not torch.equal(got[name], state[name])] == []


CONTAINERS: dict[str, Callable[[State], Any]] = {
    "raw": dict,
    "lightning": lambda state: {
        "epoch": 281,
        "pytorch-lightning_version": "1.6.5",
        "state_dict": {f"model.{name}": value for name, value in state.items()},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(7.0)}}}],
        "hyper_parameters": {"lr": 1e-3},
    },
    "trainer": lambda state: {"model": state, "epoch": 299, "args": argparse.Namespace(lr=4e-3, model="tiny")},
    "data parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "all at once": lambda state: {
        "state_dict": {"model": {f"module.model.{name}": value for name, value in state.items()}}
    },
}


class TestWhatLoads:
    @pytest.mark.parametrize("container", CONTAINERS)
    @pytest.mark.parametrize("writer", ["edge", "authors", "timm"])
    def test_every_writer_in_every_container(self, writer: str, container: str, ours: State, tmp_path: Path) -> None:
        path = write(CONTAINERS[container](as_written_by(writer, ours)), tmp_path / "weights.ckpt")
        network, applied = load(path)
        assert_same(network, ours)
        assert applied == checkpoints.Applied(writer, ("float32",))

    @pytest.mark.parametrize("writer", ["edge", "authors", "timm"])
    def test_safetensors(self, writer: str, ours: State, tmp_path: Path) -> None:
        network, applied = load(write(as_written_by(writer, ours), tmp_path / "weights.safetensors"))
        assert_same(network, ours)
        assert applied.keys == writer

    @pytest.mark.parametrize("name", ["weights.bin", "Gewichte für später.pth"])
    def test_the_content_decides_and_not_the_name(self, name: str, ours: State, tmp_path: Path) -> None:
        stored = write(ours, tmp_path / "weights.safetensors").rename(tmp_path / name)
        assert_same(load(stored)[0], ours)

    def test_torchs_format_from_before_1_6(self, ours: State, tmp_path: Path) -> None:
        torch.save(ours, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        assert_same(load(tmp_path / "old.pth")[0], ours)

    @pytest.mark.parametrize("writer", ["edge", "authors"])
    def test_the_detection_backbone(self, writer: str, tmp_path: Path) -> None:
        state = randomise(tiny_pyramid())
        path = write(as_written_by(writer, state, pyramid=True), tmp_path / "backbone.pth")
        network, applied = load(path, TINY_PYRAMID)
        assert_same(network, state)
        assert applied.keys == writer

    @pytest.mark.parametrize("writer", ["edge", "authors", "timm"])
    def test_layer_scale(self, writer: str, tmp_path: Path) -> None:
        state = randomise(tiny(layer_scale=1.0))
        path = write(as_written_by(writer, state, layer_scale=True), tmp_path / "scaled.pth")
        assert_same(load(path, layer_scale=1.0)[0], state)

    @pytest.mark.parametrize(("variant", "keys"), [("t0", 131), ("s", 171), ("l", 251)])
    def test_the_authors_and_timms_files_have_this_many_keys(self, variant: str, keys: int) -> None:
        entry = find(f"fasternet_{variant}")
        with torch.device("meta"):
            network = create(entry.name)
        for writer in ("authors", "timm"):
            renamed = as_written_by(writer, network.state_dict(), network.config.depths)
            assert len(renamed) == keys
            others = [other for other in KEY_MAPS if other != writer]
            assert all(KEY_MAPS[other](renamed) is None for other in others), "mistaken for another's"
            mapped = KEY_MAPS[writer](renamed)
            assert mapped is not None and mapped.keys() == network.state_dict().keys()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_floating_types_are_converted_and_recorded(
        self, dtype: torch.dtype, ours: State, tmp_path: Path
    ) -> None:
        stored = {name: value.to(dtype) if value.is_floating_point() else value for name, value in ours.items()}
        stored["head.weight"] = ours["head.weight"]
        network, applied = load(write(stored, tmp_path / "half.safetensors"))
        assert_same(network, {name: value.to(ours[name].dtype) for name, value in stored.items()})
        assert applied.dtypes == tuple(sorted(("float32", str(dtype).removeprefix("torch."))))

    def test_batch_counters_may_be_left_out(self, ours: State, tmp_path: Path) -> None:
        stored = {name: value for name, value in ours.items() if not name.endswith("num_batches_tracked")}
        network, _ = load(write(stored, tmp_path / "weights.pt"))
        assert_same(network, {**ours, **{name: torch.tensor(0) for name in ours if name not in stored}})

    def test_loading_twice_changes_nothing(self, ours: State, tmp_path: Path) -> None:
        path = write(as_written_by("timm", ours), tmp_path / "weights.pt")
        network, _ = load(path)
        checkpoints.apply(TINY, network, checkpoints.load(path), path)
        assert_same(network, ours)


def refusal(path: Path, entry: Entry = TINY, **options: Any) -> InputError:
    """The error for this file, after checking that the network was not touched."""
    network = entry.build(**options)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        checkpoints.apply(entry, network, checkpoints.load(path), path)
    assert_same(network, before)
    error = caught.value
    assert error.exit_code == ExitCode.INPUT and error.stage == "define" and error.next_step
    assert str(path) in error.message and "\n" not in error.message
    return error


class TestWhatDoesNotFit:
    def test_missing(self, ours: State, tmp_path: Path) -> None:
        del ours["stages.2.1.expand.weight"]
        error = refusal(write(ours, tmp_path / "weights.pt"))
        assert "missing: stages.2.1.expand.weight 128×64×1×1" in error.message

    def test_the_marks_of_a_writer_may_be_the_missing_ones(self, ours: State, tmp_path: Path) -> None:
        del ours["head.weight"]
        error = refusal(write(as_written_by("authors", ours), tmp_path / "weights.pt"))
        assert "missing: head.weight 24×128×1×1" in error.message

    def test_left_over(self, ours: State, tmp_path: Path) -> None:
        ours["stages.4.0.expand.weight"] = torch.ones(3, 2)
        error = refusal(write(ours, tmp_path / "weights.pt"))
        assert "not the network's: stages.4.0.expand.weight 3×2" in error.message

    def test_another_shape(self, ours: State, tmp_path: Path) -> None:
        ours["stages.0.0.partial.conv.weight"] = torch.ones(8, 8, 3, 3)
        error = refusal(write(ours, tmp_path / "weights.pt"))
        assert "stages.0.0.partial.conv.weight is 8×8×3×3, the network's 4×4×3×3" in error.message

    def test_only_the_first_are_shown(self, ours: State, tmp_path: Path) -> None:
        stored = {name: value for name, value in ours.items() if not name.startswith("stages.2.")}
        error = refusal(write(stored, tmp_path / "weights.pt"))
        assert error.message.count("stages.2.") == 5 and error.message.endswith("and 9 more")

    def test_another_number_of_classes(self, tmp_path: Path) -> None:
        path = write(as_written_by("authors", randomise(tiny(classes=7))), tmp_path / "weights.pt")
        error = refusal(path)
        assert "classifier.weight is 7×24, the network's 10×24" in error.message
        assert "trained for 7 classes" in error.next_step
        load(path, classes=7)

    def test_another_variant(self, tmp_path: Path) -> None:
        path = write(randomise(tiny(width=24)), tmp_path / "weights.pt")
        assert "embedding.conv.weight is 24×3×4×4, the network's 16×3×4×4" in refusal(path).message

    def test_a_classifiers_weights_are_not_a_backbones(self, ours: State, tmp_path: Path) -> None:
        error = refusal(write(as_written_by("authors", ours), tmp_path / "weights.pt"), TINY_PYRAMID)
        assert "norms.0.weight" in error.message and "head.weight" in error.message

    def test_keys_of_no_known_kind(self, tmp_path: Path) -> None:
        error = refusal(write({"conv1.weight": torch.ones(2, 2)}, tmp_path / "weights.pt"))
        assert "edge, authors, timm" in error.next_step and "conv1.weight 2×2" in error.message

    def test_two_keys_for_one_tensor(self, ours: State, tmp_path: Path) -> None:
        stored = as_written_by("authors", ours)
        stored["classifier.weight"] = ours["classifier.weight"]
        assert "two of its keys name the same tensor" in refusal(write(stored, tmp_path / "weights.pt")).message

    def test_weights_that_are_folded_already(self, ours: State, tmp_path: Path) -> None:
        scale = ours["embedding.norm.weight"] / (ours["embedding.norm.running_var"] + 1e-5).sqrt()
        ours["embedding.conv.weight"] *= scale.reshape(-1, 1, 1, 1)
        ours["embedding.conv.bias"] = ours["embedding.norm.bias"] - ours["embedding.norm.running_mean"] * scale
        stored = {name: value for name, value in ours.items() if not name.startswith("embedding.norm.")}
        error = refusal(write(stored, tmp_path / "weights.pt"))
        assert "embedding.norm.running_var" in error.message and "embedding.conv.bias" in error.message
        assert "folded already" in error.next_step

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("name", ["stages.1.0.project.weight", "mergings.0.norm.running_mean", "classifier.bias"])
    def test_not_a_number(self, name: str, value: float, ours: State, tmp_path: Path) -> None:
        ours[name].view(-1)[3] = value
        error = refusal(write(ours, tmp_path / "weights.pt"))
        assert f"{name} has 1 of {ours[name].numel()} values NaN or infinite" in error.message

    def test_a_double_that_float32_cannot_hold(self, ours: State, tmp_path: Path) -> None:
        ours["head.weight"] = ours["head.weight"].double() * 1e300
        assert "head.weight has" in refusal(write(ours, tmp_path / "weights.pt")).message

    @pytest.mark.parametrize("value", [-1e-3, 0.0])
    def test_a_variance_that_is_not_positive(self, value: float, ours: State, tmp_path: Path) -> None:
        ours["stages.2.0.norm.running_var"][5] = value
        error = refusal(write(ours, tmp_path / "weights.pt"))
        assert f"stages.2.0.norm.running_var is {value:g} in channel 5" in error.message

    @pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.bool])
    def test_weights_that_are_not_floating_point(self, dtype: torch.dtype, ours: State, tmp_path: Path) -> None:
        ours["head.weight"] = ours["head.weight"].to(dtype)
        error = refusal(write(ours, tmp_path / "weights.pt"))
        assert f"head.weight is {str(dtype).removeprefix('torch.')}" in error.message


class Touch:
    """Unpickling one runs a command that leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


class TestDamageAndMalice:
    @pytest.mark.parametrize(
        ("form", "message"),
        [("zip", "posix.system"), ("legacy", "posix.system"), ("pickle", "not a checkpoint")],
    )
    def test_code_in_a_pickle_is_not_run(self, form: str, message: str, ours: State, tmp_path: Path) -> None:
        marker, path = tmp_path / "ran", tmp_path / "weights.pt"
        malicious = {**ours, "extra": Touch(marker)}
        if form == "pickle":
            path.write_bytes(pickle.dumps(malicious))
        else:
            torch.save(malicious, path, _use_new_zipfile_serialization=form == "zip")
        torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
        assert marker.exists(), "the file is not malicious, so this test would prove nothing"
        marker.unlink()
        error = refusal(path)
        assert not marker.exists()
        assert message in error.message

    def test_a_whole_pickled_network_is_not_unpickled(self, tmp_path: Path) -> None:
        torch.save(tiny(), tmp_path / "network.pt")
        assert "state_dict()" in refusal(tmp_path / "network.pt").next_step

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    @pytest.mark.parametrize("keep", [0, 5, 0.01, 0.5, 0.999])
    def test_a_truncated_file(self, suffix: str, keep: float, ours: State, tmp_path: Path) -> None:
        path = write(ours, tmp_path / f"weights{suffix}")
        content = path.read_bytes()
        path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
        assert "damaged" in refusal(path).message

    @pytest.mark.parametrize(
        "content",
        [b"\x00" * 1000, b"<html>404 Not Found</html>", bytes(range(256)) * 40, b"\xff" * 8 + b"{}" * 50],
        ids=["zeros", "a web page", "bytes", "a header of 2^64 bytes"],
    )
    def test_garbage(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "weights.pt"
        path.write_bytes(content)
        assert "damaged or not a checkpoint" in refusal(path).message

    def test_an_archive_of_something_else(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("../../outside.txt", "x")
        (tmp_path / "weights.pt").write_bytes(buffer.getvalue())
        assert "damaged or not a checkpoint" in refusal(tmp_path / "weights.pt").message

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({}, "no tensors at all"),
            ({"state_dict": {}}, "no tensors at all"),
            ([torch.ones(1)], "holds a list"),
            (torch.ones(1), "holds a Tensor"),
            ({"epoch": 3, "net": {"w": torch.ones(1)}}, "more than tensors: epoch, net"),
            ({3: torch.ones(1)}, "more than tensors: 3"),
        ],
        ids=["empty", "empty container", "list", "tensor", "unknown container", "numbers for keys"],
    )
    def test_not_a_dict_of_tensors(self, content: Any, message: str, tmp_path: Path) -> None:
        assert message in refusal(write(content, tmp_path / "weights.pt")).message

    def test_no_such_file(self, tmp_path: Path) -> None:
        assert "does not exist" in refusal(tmp_path / "nowhere.pt").message
        assert "is not a file" in refusal(tmp_path).message


class TestWriting:
    def test_what_is_saved_is_what_is_loaded(self, ours: State, tmp_path: Path) -> None:
        checkpoints.save(ours, tmp_path / "weights.safetensors")
        network, applied = load(tmp_path / "weights.safetensors")
        assert_same(network, ours)
        assert applied.keys == "edge"

    def test_the_same_tensors_give_the_same_bytes(self, ours: State, tmp_path: Path) -> None:
        checkpoints.save(ours, tmp_path / "a")
        checkpoints.save(dict(reversed(ours.items())), tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_a_failed_write_leaves_the_old_file_and_no_other(self, ours: State, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        path.write_bytes(b"old")
        with pytest.raises(Exception, match=r"."):
            checkpoints.save({"bad": torch.ones(1, device="meta")}, path)
        assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"old"


class TestDigest:
    def test_it_sees_values_names_shapes_and_types_and_nothing_else(self, ours: State) -> None:
        digest = checkpoints.digest(ours)
        name = "stages.0.0.expand.weight"
        flipped = ours[name].clone()
        flipped.view(torch.int32).view(-1)[0] ^= 1  # the last bit of one weight
        different = [
            {**ours, name: flipped},
            {**ours, name: ours[name].reshape(-1)},
            {**ours, name: ours[name].view(torch.int32)},
            {(f"{key}x" if key == name else key): value for key, value in ours.items()},
            {key: value for key, value in ours.items() if key != name},
        ]
        assert len({digest, *map(checkpoints.digest, different)}) == 6
        strided = {**ours, name: ours[name].permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)}
        assert checkpoints.digest(dict(reversed(strided.items()))) == digest

    def test_it_is_the_same_in_another_process(self, ours: State, tmp_path: Path) -> None:
        checkpoints.save(ours, tmp_path / "weights.safetensors")
        code = """
import pathlib, sys
from edge.models import checkpoints
print(checkpoints.digest(checkpoints.load(pathlib.Path(sys.argv[1]))))
"""
        run = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "weights.safetensors"],
            env={**os.environ, "PYTHONHASHSEED": "7"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == checkpoints.digest(ours)
