"""TFLite: two converters, one contract. What they write holds, and what breaks a file is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from conftest import SIZE, Sqnr, TinyNetwork, settle_batch_norm
from edge import processes, worker
from edge.backends import tflite_file, tflite_operators, tflite_weights
from edge.formats import FORMATS
from edge.models.fasternet import Config, FasterNetPyramid
from edge.records import EmitJob, EmittedFile, RunJob
from edge.toolchains import environments

pytestmark = pytest.mark.slow

GATES = {"fp32": 100, "fp16": 50, "int8": 20}
LIMIT_S = 600


def files_job(tiny: TinyNetwork, folder: Path) -> EmitJob:
    """The tiny network in every precision, calibrated on the check samples too.

    Eight samples of noise do not span what other noise reaches, and the clipping would hide what is tested here: the
    quantised arithmetic.
    """
    job = tiny.job("", folder, *GATES)
    calibration = folder.with_name("calibration.npz")
    images = [np.load(path)["image"] for path in (tiny.calibration, tiny.check_inputs)]
    np.savez(calibration, image=np.concatenate(images))
    return replace(job, calibration=calibration)


def emit(job: EmitJob, converter: str) -> dict[str, EmittedFile]:
    """The job's files by precision, from a worker in the converter's own environment."""
    chosen = FORMATS["tflite"].converters[converter]
    environments.ensure(chosen.environment, print)
    emissions = processes.emit(replace(job, backend=chosen.backend), environment=chosen.environment, limit_s=LIMIT_S)
    assert {p: e.reason for p, e in emissions.items()} == dict.fromkeys(job.precisions, "")
    return {precision: emission.files[0] for precision, emission in emissions.items()}


@dataclass(frozen=True)
class Emitted:
    """The tiny network in every precision."""

    converter: str
    folder: Path
    files: dict[str, EmittedFile]

    def path(self, precision: str) -> Path:
        return self.folder / self.files[precision].file

    def model(self, precision: str) -> Any:
        return tflite_file.unpack(self.path(precision).read_bytes())


@pytest.fixture(scope="module", params=["litert", "onnx2tf"])
def emitted(request: pytest.FixtureRequest, tiny: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    folder = tmp_path_factory.mktemp(request.param) / "files"
    return Emitted(request.param, folder, emit(files_job(tiny, folder), request.param))


Logits = Callable[..., np.ndarray]


@pytest.fixture
def logits(tiny: TinyNetwork, emitted: Emitted, tmp_path: Path) -> Logits:
    """Run a precision's file, or the given content in its stead, on all check samples."""

    def run(precision: str, content: bytes | None = None) -> np.ndarray:
        artifact = emitted.path(precision)
        if content is not None:
            artifact = tmp_path / artifact.name
            artifact.write_bytes(content)
        file = emitted.files[precision]
        job = RunJob(file.runtime, artifact, file.inputs, file.outputs, tiny.check_inputs, tmp_path / "results.npz")
        return worker.run_all(job)[0]["logits"]

    return run


@pytest.mark.parametrize("precision", GATES)
def test_every_precision_passes_its_gate(tiny: TinyNetwork, logits: Logits, sqnr: Sqnr, precision: str):
    assert sqnr(tiny.oracle["logits"], logits(precision)) >= GATES[precision]


@pytest.mark.parametrize("precision", GATES)
def test_the_signature_has_our_names_and_takes_channels_last_in_float(emitted: Emitted, precision: str):
    interpreter = Interpreter(model_path=str(emitted.path(precision)))
    assert list(interpreter.get_signature_list().values()) == [{"inputs": ["image"], "outputs": ["logits"]}]
    (image,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (image["shape"].tolist(), image["dtype"]) == ([1, SIZE, SIZE, 3], np.float32)
    assert (out["shape"].tolist(), out["dtype"]) == ([1, 10], np.float32)
    (port,) = emitted.files[precision].inputs
    assert (port.layout, port.shape, port.tensor, port.dtype) == ("NHWC", (1, SIZE, SIZE, 3), "image", "float32")


def test_an_image_that_is_not_transposed_is_caught(tiny: TinyNetwork, emitted: Emitted, sqnr: Sqnr):
    run = Interpreter(model_path=str(emitted.path("fp32"))).get_signature_runner()
    images = np.load(tiny.check_inputs)["image"]
    wrong = np.concatenate([run(image=image.reshape(1, SIZE, SIZE, 3))["logits"] for image in images])
    assert sqnr(tiny.oracle["logits"], wrong) < GATES["int8"]


def test_emitting_again_gives_the_same_bytes(tiny: TinyNetwork, emitted: Emitted, tmp_path: Path):
    again = emit(files_job(tiny, tmp_path / "again"), emitted.converter)
    for precision, file in again.items():
        assert (tmp_path / "again" / file.file).read_bytes() == emitted.path(precision).read_bytes()
    assert again == emitted.files


def test_nothing_but_the_files_is_left_in_the_folder(emitted: Emitted):
    names = {name for file in emitted.files.values() for name in (file.file, file.simulation) if name}
    assert {path.name for path in emitted.folder.iterdir()} == names


def test_litert_torch_needs_no_transpose(emitted: Emitted):
    if emitted.converter == "litert":
        assert {file.notes["transposes"] for file in emitted.files.values()} == {0}
    assert all(sum(f.notes["operators_by_type"].values()) == f.notes["operators"] for f in emitted.files.values())


def test_what_xnnpack_leaves_is_counted(emitted: Emitted):
    """All of a float network is one part; in int8 XNNPACK has no GELU, and each cuts the network."""
    notes = {precision: emitted.files[precision].notes for precision in ("fp32", "int8")}
    assert (notes["fp32"]["delegates"], notes["fp32"]["delegated_share"], notes["fp32"]["not_delegated"]) == (1, 1, {})
    left = notes["int8"]["not_delegated"]
    assert set(left) == {"GELU"} and notes["int8"]["delegates"] == left["GELU"] + 1
    assert notes["int8"]["delegated_operators"] == notes["int8"]["operators"] - left["GELU"]


def test_fp16_weights_are_float16(emitted: Emitted):
    assert {layer.weights.type for layer in tflite_weights.weighted_layers(emitted.model("fp16"))} == {
        schema.TensorType.FLOAT16
    }


def test_int8_is_int8_inside(emitted: Emitted):
    model = emitted.model("int8")
    for tensor in (layer.weights for layer in tflite_weights.weighted_layers(model)):
        assert tensor.type == schema.TensorType.INT8
        assert len(tensor.quantization.scale) == tensor.shape[0], "one scale an output channel"
    for kind, operator, subgraph in tflite_file.operators(model):
        expected = schema.TensorType.FLOAT32 if kind == "DEQUANTIZE" else schema.TensorType.INT8
        assert {subgraph.tensors[index].type for index in operator.outputs} == {expected}, kind
    notes = emitted.files["int8"].notes
    assert notes["float_operators"] == 0
    assert notes["output_quanta"]["logits"] > 0


def test_every_int8_operator_agrees_with_its_reference_kernel(emitted: Emitted):
    notes = emitted.files["int8"].notes
    assert notes["operators_within_one_quantum"] >= 0.999, notes["worst_operator"]


def test_an_operator_that_computes_something_else_is_caught(
    tiny: TinyNetwork, emitted: Emitted, monkeypatch: pytest.MonkeyPatch
):
    model = emitted.model("int8")
    buffer = list(tflite_weights.weighted_layers(model))[1].buffer
    buffer.data = buffer.data ^ np.uint8(0x40)
    monkeypatch.setattr(tflite_file, "unpack", lambda content: model)
    image = np.load(tiny.check_inputs)["image"][:1].transpose(0, 2, 3, 1)
    deviations = tflite_operators.deviations(emitted.path("int8"), {"image": np.ascontiguousarray(image)})
    assert [d.operator.split()[1] for d in deviations if d.within_one_quantum < 0.999] == ["CONV_2D"]


def test_the_reference_kernels_ran_every_check_sample(tiny: TinyNetwork, emitted: Emitted, sqnr: Sqnr):
    file = emitted.files["int8"]
    simulation = np.load(emitted.folder / file.simulation)["logits"]
    assert simulation.shape == tiny.oracle["logits"].shape
    assert sqnr(tiny.oracle["logits"], simulation) >= GATES["int8"]


def flip_bit_of_classifier(model: Any, kind: type[np.generic], bit: int) -> bytes:
    """Flip a bit, counted from the lowest, of the classifier's largest weight."""
    *_, classifier = tflite_weights.weighted_layers(model)
    buffer = classifier.buffer
    weights = buffer.data.view(kind).copy()
    bits = weights.view(f"u{weights.itemsize}")
    bits[np.abs(weights.astype(np.float32)).argmax()] ^= 1 << bit
    buffer.data = weights.view(np.uint8)
    return tflite_file.pack(model)


@pytest.mark.parametrize(("precision", "kind", "bit"), [("fp32", np.float32, 22), ("fp16", np.float16, 9)])
def test_a_flipped_bit_of_one_weight_is_caught(
    tiny: TinyNetwork, emitted: Emitted, logits: Logits, sqnr: Sqnr, precision: str, kind: type[np.generic], bit: int
):
    flipped = flip_bit_of_classifier(emitted.model(precision), kind, bit)
    assert sqnr(tiny.oracle["logits"], logits(precision, flipped)) < GATES[precision]


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_of_one_int8_weight_is_caught(emitted: Emitted, bit: int):
    """The outputs' gate cannot see one weight under the quantisation error; comparing the weights sees any bit."""
    assert emitted.files["int8"].notes["largest_weight_error_quanta"] <= 0.5
    flipped = flip_bit_of_classifier(emitted.model("int8"), np.int8, bit)
    assert tflite_weights.largest_error_quanta(emitted.path("fp32").read_bytes(), flipped) > 0.5


@pytest.mark.parametrize("precision", GATES)
def test_two_swapped_channels_are_caught(
    tiny: TinyNetwork, emitted: Emitted, logits: Logits, sqnr: Sqnr, precision: str
):
    model = emitted.model(precision)
    layer = next(tflite_weights.weighted_layers(model))
    data = layer.buffer.data.copy().reshape(layer.weights.shape[0], -1)
    data[[0, 1]] = data[[1, 0]]
    layer.buffer.data = data.reshape(-1)
    assert sqnr(tiny.oracle["logits"], logits(precision, tflite_file.pack(model))) < GATES[precision]


def test_the_tanh_form_of_gelu_is_caught(tiny: TinyNetwork, emitted: Emitted, logits: Logits, sqnr: Sqnr):
    model = emitted.model("fp32")
    activations = [operator for kind, operator, _ in tflite_file.operators(model) if kind == "GELU"]
    assert activations
    for operator in activations:
        assert not operator.builtinOptions.approximate
        operator.builtinOptions.approximate = True
    assert sqnr(tiny.oracle["logits"], logits("fp32", tflite_file.pack(model))) < GATES["fp32"]


def test_rewriting_a_file_changes_nothing(emitted: Emitted, logits: Logits):
    """The faults above are the reason why the gates fail, not the way they are injected."""
    for precision in GATES:
        content = tflite_file.pack(emitted.model(precision))
        np.testing.assert_array_equal(logits(precision, content), logits(precision))


@pytest.mark.parametrize("precision", GATES)
def test_a_truncated_file_is_an_error_with_a_reason(
    tiny: TinyNetwork, emitted: Emitted, tmp_path: Path, precision: str
):
    whole = emitted.path(precision).read_bytes()
    artifact = tmp_path / "half.tflite"
    artifact.write_bytes(whole[: len(whole) // 2])
    file = emitted.files[precision]
    job = RunJob(file.runtime, artifact, file.inputs, file.outputs, tiny.check_inputs, tmp_path / "results.npz")
    run = processes.run(job)
    assert run.outputs is None
    assert "not a valid Flatbuffer" in run.reason


@pytest.mark.parametrize("converter", FORMATS["tflite"].converters)
def test_feature_maps_come_out_channels_last_under_our_names(
    tiny: TinyNetwork, tmp_path: Path, sqnr: Sqnr, converter: str
):
    images = torch.from_numpy(np.load(tiny.check_inputs)["image"])
    torch.manual_seed(0)
    network = FasterNetPyramid(Config(16, (1, 1, 1, 1), "relu"))
    settle_batch_norm(network, torch.from_numpy(np.load(tiny.calibration)["image"]))
    torch.export.save(torch.export.export(network, (images[:1],)), tmp_path / "program.pt2")
    with torch.no_grad():
        expected = [feature.numpy() for feature in network.double()(images.double())]

    names = tuple(f"features_{stage}" for stage in range(4))
    job = replace(tiny.job("", tmp_path / "files", "fp32"), program=tmp_path / "program.pt2", outputs=names)
    file = emit(job, converter)["fp32"]

    assert [port.name for port in file.outputs] == list(names)
    assert [port.layout for port in file.outputs] == ["NHWC"] * 4
    assert [port.shape for port in file.outputs] == [(1, s, s, c) for s, c in ((16, 16), (8, 32), (4, 64), (2, 128))]
    artifact = job.folder / file.file
    run = RunJob(file.runtime, artifact, file.inputs, file.outputs, tiny.check_inputs, tmp_path / "results.npz")
    outputs, _ = worker.run_all(run)
    for name, feature in zip(names, expected, strict=True):
        assert sqnr(feature, outputs[name]) >= GATES["fp32"]
