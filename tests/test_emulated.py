"""The target's core: what an export ships runs there, what it executes is known, its cost repeats to the digit."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import dot_product
import numpy as np
import pytest
import torch
from rich.console import Console

from conftest import SIZE, TinyNetwork, settle_batch_norm
from edge import costing, pipeline, targets
from edge.calibration.photographs import calibration_set
from edge.calibration.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edge.devices import emulated
from edge.devices.emulated import Emulated
from edge.errors import ExitCode, InputError, UsageError
from edge.manifest import Manifest
from edge.models.fasternet import Config, FasterNet
from edge.parity.vectors import Vectors
from edge.processes import Run
from edge.progress import Reporter
from edge.records import EmittedFile, Port, RunJob, Tool
from edge.request import Request
from edge.stages.verify import Check, Subject, verify
from edge.verification import verify_again
from rig.loopback import loopback

pytestmark = pytest.mark.slow


def reporter() -> Reporter:
    return Reporter(Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Everything a Cortex-A72 takes, exported for it without asking for anything special.

    The network's BatchNorms know the photographs that it is calibrated with, so that it is int8 throughout.
    """
    torch.manual_seed(0)
    network = FasterNet(Config(24, (1, 1), "gelu", head_width=64, classes=10))
    samples = calibration_set(Preprocessing(SIZE, 0.9, IMAGENET_MEAN, IMAGENET_STD)).samples
    settle_batch_norm(network, torch.from_numpy(samples))
    program = tmp_path_factory.mktemp("own") / "tiny.pt2"
    torch.export.save(torch.export.export(network, (torch.from_numpy(samples[:1]),)), program)
    request = Request(str(program), targets.load("cortex-a72"), out=tmp_path_factory.mktemp("dist"))
    return request.folder, pipeline.export(request, reporter())


@pytest.fixture
def folder(made: tuple[Path, Manifest], tmp_path: Path) -> Path:
    """A copy of it, for the tests that change things."""
    return Path(shutil.copytree(made[0], tmp_path / "tiny"))


def checks(manifest: Manifest, device: str) -> dict[str, dict]:
    return {
        entry["file"].removeprefix("tiny."): check
        for entry in manifest["artifacts"]
        for check in entry["checks"]
        if check["device"] == device
    }


def test_every_artifact_is_checked_on_the_host_and_on_the_core(made: tuple[Path, Manifest]):
    both = {f"{precision}.tflite" for precision in ("fp32", "fp16", "int8")}
    both |= {f"{precision}.{suffix}" for precision in ("fp32", "int8") for suffix in ("pte", "bpte")}
    assert set(checks(made[1], "host")) == both | {"fp32.host.so"}
    assert set(checks(made[1], "emulated")) == both | {"fp32.cortex-a72.so"}
    assert {check["status"] for device in ("host", "emulated") for check in checks(made[1], device).values()} == {
        "passed"
    }
    assert pipeline.exit_code(made[1], require=True) is ExitCode.OK


def test_the_precision_that_really_ran_is_told(made: tuple[Path, Manifest]):
    """Without half-precision arithmetic, a float16 file computes in float32, and the report says so."""
    found = checks(made[1], "emulated")
    assert {name: check["executed"]["ran"] for name, check in found.items()} == {
        name: "integer multiply" if name.startswith("int8") else "fp32 FMA" for name in found
    }
    assert "fp32 FMA" in found["fp16.tflite"]["reason"]
    assert not found["fp32.tflite"]["reason"]


def test_integers_have_the_host_s_bits_and_floats_need_not(made: tuple[Path, Manifest]):
    found = checks(made[1], "emulated")
    assert not any("mixed_precision" in entry["notes"] for entry in made[1]["artifacts"])
    for name, check in found.items():
        if name.startswith("int8"):
            assert check["host_agreement"]["identical"] == 1, name
        assert check["host_agreement"]["sqnr_db"] > (100 if name.startswith("fp") else 900), name
    assert found["fp32.tflite"]["host_agreement"]["identical"] < 1


def test_checking_again_finds_the_same(made: tuple[Path, Manifest], folder: Path):
    def found(manifest: Manifest) -> dict[str, dict]:
        emulated = json.loads(json.dumps(checks(manifest, "emulated")))
        return {name: check | {"peak_memory_mb": None} for name, check in emulated.items()}

    again = verify_again(folder, ("emulated",), reporter())
    assert found(again) == found(made[1])
    assert set(checks(again, "host")) == set(checks(made[1], "host"))
    assert json.loads((folder / "manifest.json").read_text()) == json.loads(json.dumps(again))


def test_an_artifact_that_was_changed_is_not_checked_again(folder: Path):
    artifact = folder / "tiny.fp32.tflite"
    content = bytearray(artifact.read_bytes())
    content[-1] ^= 1
    artifact.write_bytes(content)
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(InputError, match=r"tiny\.fp32\.tflite") as caught:
        verify_again(folder, (), reporter())
    assert "make export" in caught.value.next_step
    assert (folder / "manifest.json").read_bytes() == before


def test_without_an_export_or_its_vectors_the_next_step_is_told(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="no finished export"):
        verify_again(tmp_path, (), reporter())
    (folder / "vectors" / "oracle.npz").unlink()
    with pytest.raises(InputError, match="vectors"):
        verify_again(folder, (), reporter())


def test_costs_repeat_to_the_digit(folder: Path, tmp_path: Path):
    """Also from another folder, with a longer path: nothing of the host is counted."""
    other = Path(shutil.copytree(folder, tmp_path / "another folder with quite a long name" / "tiny"))
    first, counted = costing.count(folder, (), reporter())
    second, _ = costing.count(other, (), reporter())
    costs = [{entry["file"]: entry.get("cost") for entry in m["artifacts"]} for m in (first, second)]
    assert json.dumps(costs[0]) == json.dumps(costs[1])
    assert set(counted) == {f"tiny.{name}" for name in checks(first, "emulated")}
    notes = {entry["file"]: entry["notes"].get("mixed_precision", {}) for entry in first["artifacts"]}
    mixed = {file for file, note in notes.items() if note.get("float_share", 0) > 0}
    for row in costing.figures(first, counted):
        assert row["instructions"] > row["vector_fma"]
        assert row["modelled_cycles"] > (row["floor_cycles"] or 0)
        in_float = ".fp" in row["file"] or row["file"].replace(".bpte", ".pte") in mixed
        assert (row["vector_fma"] > 1000) == in_float
    page = (folder / "report.html").read_text()
    assert "Modelled cost" in page
    assert "pointwise" in page


def test_only_what_was_asked_for_is_counted(folder: Path):
    _, counted = costing.count(folder, ("tiny.int8.tflite",), reporter())
    assert counted == ["tiny.int8.tflite"]
    with pytest.raises(UsageError, match="no artifact"):
        costing.count(folder, ("tiny.int4.tflite",), reporter())


DOT = {"values": Port("values", (1, 16), "", "main(0)"), "sums": Port("sums", (1, 4), "", "main()[0]")}


def check_dot_product(target_name: str, folder: Path) -> Check:
    """Verify a library with one dot-product instruction on the emulated core of a target."""
    target = targets.load(target_name)
    assert target.tvm
    library = folder / "dot.so"
    dot_product.executable(target.tvm.model_dump(mode="json")["target"]).export_library(
        str(library), cc="aarch64-linux-gnu-ld", fcompile=link
    )
    file = EmittedFile(library.name, "tvm", Tool("TVM", "0"), (DOT["values"],), (DOT["sums"],), "target")
    values = np.arange(16, dtype=np.float32).reshape(1, 16)
    sums = (values.reshape(1, 4, 4) ** 2).sum(2)
    vectors = Vectors({"values": values}, {"sums": sums.astype(np.float64)}, {"sums": sums})
    check, _ = verify(
        Subject(file, library, target, "fp32", 1.0, 1), vectors, Emulated(target), folder / "work", 1, print
    )
    return check


def link(library: str, objects: list[str], **_: object) -> None:
    from edge.toolchains import arm64

    arm64.ensure(print)
    assert arm64.program("aarch64-linux-gnu-ld").run("-shared", "-o", library, *objects).returncode == 0


def test_a_library_with_instructions_the_core_lacks_fails_with_their_place(tmp_path: Path):
    check = check_dot_product("cortex-a72", tmp_path)
    assert check.status == "failed"
    assert "sdot" in check.reason
    assert "squares" in check.reason


def test_the_same_library_runs_on_a_core_that_has_them(tmp_path: Path):
    check = check_dot_product("cortex-a76", tmp_path)
    assert check.measured
    assert check.measured.max_abs == 0
    assert check.audit
    assert check.audit.multiplications["integer dot product"] > 0


class Swapping(Emulated):
    """A device whose runner returns two channels swapped."""

    def run(self, job: RunJob) -> Run:
        run = super().run(job)
        assert run.outputs
        swapped = [1, 0, *range(2, run.outputs["logits"].shape[1])]
        return replace(run, outputs={name: values[:, swapped] for name, values in run.outputs.items()})


def test_a_runner_that_swaps_channels_fails(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(emulated, "Emulated", Swapping)
    manifest = verify_again(folder, ("emulated",), reporter())
    failed = checks(manifest, "emulated")
    assert {check["status"] for check in failed.values()} == {"failed"}
    assert all("SQNR" in check["reason"] for check in failed.values())
    assert pipeline.exit_code(manifest, require=False) is ExitCode.PARITY


def test_an_emulator_that_hangs_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(emulated, "LIMIT_S", 0.01)
    manifest = verify_again(folder, ("emulated",), reporter())
    assert all("limit" in check["reason"] for check in checks(manifest, "emulated").values())


def test_where_there_is_no_emulator_the_check_is_a_skip(
    tiny: TinyNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A host without Debian's tools: nothing is unpacked yet, and nothing can be."""
    program = Path(shutil.copy(tiny.program, tmp_path / "tiny.pt2"))
    monkeypatch.setattr("edge.toolchains.debian.TOOLS", tmp_path / "tools")
    monkeypatch.setenv("PATH", "")
    request = Request(str(program), targets.load("cortex-a72"), ("executorch",), ("fp32",), out=tmp_path / "dist")
    manifest = pipeline.export(request, reporter())
    found = checks(manifest, "emulated")
    assert {check["status"] for check in found.values()} == {"skipped"}
    assert all("Debian" in check["reason"] for check in found.values())
    assert {check["status"] for check in checks(manifest, "host").values()} == {"passed"}
    assert pipeline.exit_code(manifest, require=False) is ExitCode.OK
    assert pipeline.exit_code(manifest, require=True) is ExitCode.EXPORT


def test_a_board_over_ssh_checks_the_same_artifacts(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A real sshd on loopback, whose board is the emulated core: the same bits, and timings beside them."""
    with loopback(tmp_path / "board", targets.load("cortex-a72")) as rig:
        monkeypatch.setenv("PATH", str(rig.client), prepend=":")
        manifest = verify_again(folder, (rig.address, "emulated"), reporter())
        assert rig.board.leftovers() == []
    board, emulator = checks(manifest, rig.address), checks(manifest, "emulated")
    assert set(board) == set(emulator)
    assert {check["status"] for check in board.values()} == {"passed"}
    for name, check in board.items():
        assert len(check["repeats"]) == 20, name
        assert check["seconds"] > 0, name
        assert "aarch64" in check["conditions"]["kernel"]
        assert len(check["samples"]["kind"]) == 16, name
    assert board["int8.tflite"]["host_agreement"]["identical"] == 1
