"""A whole network through Core ML: emitted, read back, held to its gates; and faults that the gates must catch."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import mil_files
import numpy as np
import pytest
import torch
from coremltools.converters.mil.frontend.milproto.load import load as load_with_coremltools
from coremltools.proto import MIL_pb2, Model_pb2
from torch import nn

from edge import records, worker
from edge.backends import coreml, coreml_simulation
from edge.records import EmitJob, EmittedFile, RunJob
from edge.runtimes.mil import MilError, Program

GATES = {"fp32": 100.0, "fp16": 50.0, "int8": 20.0}


@dataclasses.dataclass(frozen=True)
class Emitted:
    """The three files of one network."""

    job: EmitJob
    files: dict[str, EmittedFile]

    def path(self, precision: str) -> Path:
        return self.job.folder / self.files[precision].file

    def run(self, precision: str, artifact: Path | None = None) -> dict[str, np.ndarray]:
        file = self.files[precision]
        artifact = artifact or self.path(precision)
        results = self.job.folder / "results.npz"
        job = RunJob(file.runtime, artifact, file.inputs, file.outputs, self.job.check_inputs, results)
        return worker.run_all(job)[0]


def emit(job: EmitJob) -> Emitted:
    prepared = coreml.prepare(job)
    return Emitted(job, {p: file for p in job.precisions for file in coreml.emit(job, prepared, p)})


@pytest.fixture(scope="module")
def emitted(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    return emit(tiny.job("coreml", tmp_path_factory.mktemp("coreml"), *GATES))


@pytest.mark.parametrize("precision", GATES)
def test_the_saved_file_reaches_its_gate(precision: str, emitted: Emitted, tiny: Any, sqnr: Any) -> None:
    assert sqnr(tiny.oracle["logits"], emitted.run(precision)["logits"]) >= GATES[precision]


def test_the_precisions_are_what_they_say(emitted: Emitted, tiny: Any, sqnr: Any) -> None:
    """SQNR against float64 identifies the precision that ran: float16 does not reach 80 dB, int8 weights not 50."""
    assert sqnr(tiny.oracle["logits"], emitted.run("fp16")["logits"]) < 80
    assert sqnr(tiny.oracle["logits"], emitted.run("int8")["logits"]) < 50
    size = {p: (emitted.path(p) / mil_files.WEIGHTS).stat().st_size for p in GATES}
    assert size["fp16"] < 0.6 * size["fp32"]
    assert size["int8"] < 0.8 * size["fp16"]


def test_int8_agrees_with_the_simulation_of_its_weights(emitted: Emitted, sqnr: Any) -> None:
    file = emitted.files["int8"]
    assert "our own" in file.simulated_by
    with np.load(emitted.job.folder / str(file.simulation)) as simulation:
        expected, got = simulation["logits"], emitted.run("int8")["logits"]
    quantum = (expected.max() - expected.min()) / 255
    assert np.mean(np.abs(expected - got) <= quantum) >= 0.999


def test_ports_and_notes_describe_the_file(emitted: Emitted) -> None:
    for precision, dtype in (("fp32", "float32"), ("fp16", "float16"), ("int8", "float16")):
        file = emitted.files[precision]
        (image,), (logits,) = file.inputs, file.outputs
        assert (image.name, image.shape, image.layout, image.dtype) == ("image", (1, 3, 64, 64), "NCHW", dtype)
        assert (logits.tensor, logits.shape, logits.layout, logits.dtype) == ("logits", (1, 10), "", dtype)
        counts = Program(emitted.path(precision)).counts
        computing = {k: v for k, v in counts.items() if k != "const" and not k.startswith("constexpr_")}
        assert file.notes["operator_types"] == computing
        assert file.notes["operators"] == sum(computing.values())
        assert file.notes["transposes"] == 0
        assert records.emitted_from_json(json.loads(json.dumps(records.to_json(file)))) == file
    assert 0.5 < emitted.files["int8"].notes["quantised_share"] < 1


def test_an_image_of_another_size_is_refused(emitted: Emitted) -> None:
    with pytest.raises(MilError, match="shape"):
        Program(emitted.path("fp16"))({"image": np.zeros((1, 3, 32, 32), np.float32)})


# --- int8 weights, to the bit ---


class Plain(nn.Module):
    """No batch normalisation to be folded, so the file's weights are the program's; and a slice in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 5), nn.Conv2d(32, 24, 3, groups=2)
        self.small, self.last = nn.Conv2d(8, 8, 1), nn.Linear(24 * 10 * 10, 7)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.second(torch.relu(self.first(image))))
        features = torch.cat([self.small(features[:, 4:12]), features[:, 12:], features[:, :4]], 1)
        return features, self.last(features.flatten(1))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmitJob, nn.Module]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("plain")
    image = torch.randn(2, 3, 16, 16)
    network = Plain().eval()
    torch.export.save(torch.export.export(network, (image[:1],)), folder / "program.pt2")
    np.savez(folder / "check.npz", image=image.numpy())
    (folder / "out").mkdir()
    job = EmitJob(
        backend="edge.backends.coreml",
        model="plain",
        program=folder / "program.pt2",
        inputs=("image",),
        outputs=("features", "logits"),
        precisions=("int8",),
        calibration=folder / "check.npz",
        check_inputs=folder / "check.npz",
        target={},
        folder=folder / "out",
    )
    return job, network


@pytest.mark.parametrize("deployment_target", ["iOS16", "iOS18"])
def test_int8_weights_are_those_of_our_own_quantiser_to_the_bit(
    deployment_target: str, plain: tuple[EmitJob, nn.Module], tmp_path: Path, sqnr: Any
) -> None:
    job, network = plain
    job = dataclasses.replace(job, folder=tmp_path, target={"coreml": {"minimum_deployment_target": deployment_target}})
    emitted = emit(job)
    program = Program(emitted.path("int8"))
    assert program.opset == {"iOS16": "CoreML6", "iOS18": "CoreML8"}[deployment_target]
    stored = [v for v in program.constants.values() if isinstance(v, torch.Tensor) and v.dtype == torch.float16]
    for name in ("first", "second", "last"):
        expected = coreml_simulation.quantise_dequantise(network.get_parameter(f"{name}.weight").data).half()
        assert any(torch.equal(expected, v) for v in stored), name
    # 64 elements: too small to be quantised, so float16 as it was.
    assert any(torch.equal(network.get_parameter("small.weight").half(), v) for v in stored)
    assert emitted.files["int8"].notes["quantised_weights"] == 3
    outputs = emitted.run("int8")
    with np.load(tmp_path / str(emitted.files["int8"].simulation)) as simulation:
        for name in job.outputs:
            assert sqnr(simulation[name].astype(np.float64), outputs[name]) > 50


def test_quantisation_by_hand() -> None:
    """Two channels of largest magnitude 127 and 254, so scales 1 and 2; 2.5 steps round to even."""
    weight = torch.tensor([[127.0, -2.5, 0.25], [-254.0, 3.0, 5.0]])
    expected = torch.tensor([[127.0, -2.0, 0.0], [-254.0, 4.0, 4.0]])
    assert torch.equal(coreml_simulation.quantise_dequantise(weight), expected)
    assert torch.equal(coreml_simulation.quantise_dequantise(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_a_file_that_quantises_other_weights_than_the_simulation_is_refused(
    plain: tuple[EmitJob, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coreml_simulation, "SMALLEST_QUANTISED", 10)
    with pytest.raises(RuntimeError, match=r"quantise different weights: .*\(8, 8, 1, 1\)"):
        emit(dataclasses.replace(plain[0], folder=tmp_path))


# --- a second witness: coremltools' own reader ---


@pytest.mark.parametrize("precision", GATES)
def test_constants_are_what_coremltools_reads(precision: str, emitted: Emitted) -> None:
    package = emitted.path(precision)
    spec = Model_pb2.Model.FromString((package / mil_files.MODEL).read_bytes())
    witness = load_with_coremltools(
        spec,
        specification_version=spec.specificationVersion,
        file_weights_dir=str((package / mil_files.WEIGHTS).parent),
    )
    ours = Program(package).constants
    compared = 0
    for operation in witness.functions["main"].operations:
        name = operation.outputs[0].name
        if operation.op_type.startswith("constexpr_"):
            expected = operation.materialized_val_inference()
        elif operation.op_type == "const" and name in ours:
            expected = operation.outputs[0].val
        else:
            continue
        if isinstance(ours[name], torch.Tensor):
            np.testing.assert_array_equal(ours[name].numpy(), np.asarray(expected).reshape(ours[name].shape))
            compared += expected.size if isinstance(expected, np.ndarray) else 1
    assert compared > 20_000


# --- the same bytes ---


def digest(folder: Path) -> str:
    sums = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        sums.update(str(file.relative_to(folder)).encode() + (file.read_bytes() if file.is_file() else b""))
    return sums.hexdigest()


def test_the_package_holds_the_model_and_nothing_else(emitted: Emitted) -> None:
    package = emitted.path("fp32")
    files = {str(f.relative_to(package)) for f in package.rglob("*") if f.is_file()}
    assert files == {"Manifest.json", str(mil_files.MODEL), str(mil_files.WEIGHTS)}
    manifest = json.loads((package / "Manifest.json").read_text())
    paths = {item["path"] for item in manifest["itemInfoEntries"].values()}
    assert paths == {"com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights"}
    assert {str(uuid.UUID(key)) for key in manifest["itemInfoEntries"]} == set(manifest["itemInfoEntries"])
    spec = Model_pb2.Model.FromString((package / mil_files.MODEL).read_bytes())
    assert spec.description.metadata.userDefined["com.github.apple.coremltools.conversion_date"] == "1970-01-01"


def test_identifiers_follow_the_content(emitted: Emitted) -> None:
    keys = [set(json.loads((emitted.path(p) / "Manifest.json").read_text())["itemInfoEntries"]) for p in GATES]
    assert len(set.union(*keys)) == 6


@pytest.mark.slow
def test_the_order_of_the_precisions_does_not_matter(emitted: Emitted, tiny: Any, tmp_path: Path) -> None:
    """The simulation quantises weights; it once quantised those that the next precision was made of."""
    other = emit(tiny.job("coreml", tmp_path / "files", "int8", "fp32"))
    for precision in ("int8", "fp32"):
        assert digest(other.path(precision)) == digest(emitted.path(precision))


def test_another_process_with_another_hash_seed_writes_the_same_bytes(
    emitted: Emitted, tiny: Any, tmp_path: Path
) -> None:
    job = tiny.job("coreml", tmp_path / "again", *GATES)
    (tmp_path / "job.json").write_text(json.dumps({"kind": "emit", **records.to_json(job)}))
    arguments = [sys.executable, "-m", "edge.worker", str(tmp_path / "job.json"), str(tmp_path / "events")]
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run(arguments, check=True, env=environment, capture_output=True)
    for precision in GATES:
        assert digest(job.folder / f"tiny.{precision}.mlpackage") == digest(emitted.path(precision))


# --- faults that the fp32 gate must catch ---


@pytest.fixture
def damaged(emitted: Emitted, tmp_path: Path) -> Path:
    """A copy of the fp32 package to damage."""
    return Path(shutil.copytree(emitted.path("fp32"), tmp_path / "damaged.mlpackage"))


def stored_weights(package: Path) -> dict[str, np.ndarray]:
    """Every constant in the weight file by name, writable in place; found through the record headers."""
    spec = Model_pb2.Model.FromString((package / mil_files.MODEL).read_bytes())
    function = spec.mlProgram.functions["main"]
    raw = (package / mil_files.WEIGHTS).read_bytes()
    found = {}
    for operation in mil_files.operations(function.block_specializations[function.opset], "const"):
        value = operation.attributes["val"]
        if value.WhichOneof("value") == "blobFileValue":
            start = int(np.frombuffer(raw, "<u8", 1, value.blobFileValue.offset + 16)[0])
            shape = tuple(d.constant.size for d in value.type.tensorType.dimensions)
            found[operation.outputs[0].name] = np.memmap(package / mil_files.WEIGHTS, np.float32, "r+", start, shape)
    return found


def flip(weights: np.ndarray, index: int, bit: int) -> None:
    bits = weights.reshape(-1).view(np.uint32)
    bits[index] ^= np.uint32(1 << bit)
    weights.flush()


@pytest.mark.parametrize("bit", [31, 30, 23, 22, 19], ids=["sign", "exponent", "lowest exponent", "half", "sixteenth"])
def test_a_flipped_bit_in_any_weight_misses_the_gate(
    bit: int, emitted: Emitted, damaged: Path, tiny: Any, sqnr: Any
) -> None:
    """Down to a sixteenth of one median weight; below that a single weight's change sinks under float32's own error."""
    stored = stored_weights(damaged)
    assert len(stored) > 20
    for name, weights in stored.items():
        median = int(np.argsort(np.abs(weights), axis=None)[weights.size // 2])
        flip(weights, median, bit)
        reached = sqnr(tiny.oracle["logits"], emitted.run("fp32", damaged)["logits"])
        assert not reached >= GATES["fp32"], f"{name}: {reached:.1f} dB"
        flip(weights, median, bit)
    assert digest(damaged) == digest(emitted.path("fp32"))


def swap_channels(block: MIL_pb2.Block, package: Path) -> None:
    pointwise = next(w for w in stored_weights(package).values() if w.shape == (32, 16, 1, 1))
    pointwise[[0, 1]] = pointwise[[1, 0]]
    pointwise.flush()


def swap_concatenation(block: MIL_pb2.Block, package: Path) -> None:
    values = mil_files.operations(block, "concat")[0].inputs["values"].arguments
    first, second = values[0].name, values[1].name
    values[0].name, values[1].name = second, first


def approximate_gelu(block: MIL_pb2.Block, package: Path) -> None:
    for operation in mil_files.operations(block, "gelu"):
        mode = mil_files.constant(block, operation, "mode")
        assert list(mode.immediateValue.tensor.strings.values) == ["EXACT"]
        mode.immediateValue.tensor.strings.values[0] = "TANH_APPROXIMATION"


WRONG = {
    "two channels swapped": swap_channels,
    "concatenation swapped": swap_concatenation,
    "GELU by tanh": approximate_gelu,
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_program_misses_the_gate(fault: str, emitted: Emitted, damaged: Path, tiny: Any, sqnr: Any) -> None:
    mil_files.edit(damaged, lambda block: WRONG[fault](block, damaged))
    reached = sqnr(tiny.oracle["logits"], emitted.run("fp32", damaged)["logits"])
    assert not reached >= GATES["fp32"], f"{reached:.1f} dB"


def test_a_split_moved_by_one_does_not_run(emitted: Emitted, damaged: Path) -> None:
    def move(block: MIL_pb2.Block) -> None:
        sizes = mil_files.constant(block, mil_files.operations(block, "split")[0], "split_sizes")
        values = sizes.immediateValue.tensor.ints.values
        values[0], values[1] = values[0] + 1, values[1] - 1

    mil_files.edit(damaged, move)
    with pytest.raises(MilError, match=r"split -> .*: declared"):
        emitted.run("fp32", damaged)


@pytest.mark.parametrize("moved", [("begin",), ("end",), ("begin", "end")], ids="+".join)
def test_a_slice_moved_by_one_is_caught(
    moved: tuple[str, ...], plain: tuple[EmitJob, nn.Module], tmp_path: Path, sqnr: Any
) -> None:
    """One bound alone changes the shape; both together only the values."""
    job, network = plain
    emitted = emit(dataclasses.replace(job, folder=tmp_path, precisions=("fp32",)))
    with np.load(job.check_inputs) as check, torch.no_grad():
        oracle = copy.deepcopy(network).double()(torch.from_numpy(check["image"]).double())[0].numpy()
    assert sqnr(oracle, emitted.run("fp32")["features"]) >= GATES["fp32"]

    def move(block: MIL_pb2.Block) -> None:
        operation = mil_files.operations(block, "slice_by_index")[0]
        for side in moved:
            mil_files.constant(block, operation, side).immediateValue.tensor.ints.values[1] += 1

    mil_files.edit(emitted.path("fp32"), move)
    if len(moved) == 1:
        with pytest.raises(MilError, match=r"slice_by_index -> .*: declared"):
            emitted.run("fp32")
    else:
        assert not sqnr(oracle, emitted.run("fp32")["features"]) >= GATES["fp32"]
