"""ExecuTorch: both precisions and their bundles hold; what breaks a file is caught."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.export import ExportedProgram

from conftest import SIZE, Sqnr, TinyNetwork, settle_batch_norm
from edge import processes, records, worker
from edge.backends import executorch as backend
from edge.lowering.lower import lower
from edge.models.fasternet import Config, FasterNetPyramid
from edge.records import EmitJob, EmittedFile, RunJob

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent
GATES = {"fp32": 100, "int8": 20}
LIMIT_S = 300
aten = torch.ops.aten


@dataclass(frozen=True)
class Emitted:
    """The lowered tiny network in both precisions, from a worker."""

    job: EmitJob
    files: dict[str, EmittedFile]

    def path(self, name: str) -> Path:
        return self.job.folder / self.files[name].file

    def run(self, name: str, artifact: Path | None = None) -> processes.Run:
        """Run one file, or another artifact in its stead, in a worker: a broken one may take its process with it."""
        file, artifact = self.files[name], artifact or self.path(name)
        results = artifact.with_name(f"{artifact.name}.npz")
        job = RunJob(file.runtime, artifact, file.inputs, file.outputs, self.job.check_inputs, results)
        return processes.run(job, limit_s=LIMIT_S)

    def logits(self, name: str, artifact: Path | None = None) -> np.ndarray:
        run = self.run(name, artifact)
        assert run.outputs is not None, run.reason
        return run.outputs["logits"]


@pytest.fixture(scope="module")
def emitted(tiny: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    folder = tmp_path_factory.mktemp("executorch")
    with np.load(tiny.check_inputs) as arrays:
        lowered = lower(torch.export.load(tiny.program), torch.from_numpy(arrays["image"]))
    torch.export.save(lowered.program, folder / "lowered.pt2")
    job = replace(tiny.job("executorch", folder / "files", *GATES), program=folder / "lowered.pt2")
    emissions = processes.emit(job, environment="base", limit_s=LIMIT_S)
    assert {p: e.reason for p, e in emissions.items()} == dict.fromkeys(GATES, "")
    files = [file for emission in emissions.values() for file in emission.files]
    return Emitted(job, {file.file.removeprefix("tiny."): file for file in files})


@pytest.mark.parametrize("name", ["fp32.pte", "fp32.bpte", "int8.pte", "int8.bpte"])
def test_every_file_reaches_its_gate(emitted: Emitted, tiny: TinyNetwork, sqnr: Sqnr, name: str) -> None:
    assert sqnr(tiny.oracle["logits"], emitted.logits(name)) >= GATES[name[:4]]


def test_the_simulation_explains_the_int8_error(emitted: Emitted, tiny: TinyNetwork, sqnr: Sqnr) -> None:
    with np.load(emitted.job.folder / emitted.files["int8.pte"].simulation) as arrays:
        simulation = arrays["logits"]
    got = emitted.logits("int8.pte")
    quantisation, lowering = sqnr(tiny.oracle["logits"], simulation), sqnr(simulation, got)
    assert quantisation < 60, "a simulation this exact quantises nothing"
    assert lowering > quantisation


def test_the_whole_network_is_one_delegate(emitted: Emitted, tiny: TinyNetwork, tmp_path: Path) -> None:
    for precision in GATES:
        notes = emitted.files[f"{precision}.pte"].notes
        assert (notes["delegates"], notes["delegated_share"], notes["not_delegated"]) == (1, 1.0, {})
    as_defined = tiny.job("executorch", tmp_path / "as_defined", "fp32")
    notes = emit_here(as_defined, torch.export.load(tiny.program))[0].notes
    assert notes["delegates"] > 1, "torch.split is not delegated, so PConv as defined cuts the program in pieces"
    assert notes["not_delegated"] == {"split_with_sizes_copy.default": 5}


def test_int8_says_what_stays_float(emitted: Emitted) -> None:
    assert emitted.files["int8.pte"].notes["float_operators"]["aten.gelu.default"] == 6


def test_same_bytes_twice(emitted: Emitted, tmp_path: Path) -> None:
    """In a process with another hash seed, and with the precisions in the other order: neither touches the other."""
    job = replace(emitted.job, folder=tmp_path / "again", precisions=tuple(reversed(emitted.job.precisions)))
    job.folder.mkdir()
    (tmp_path / "job.json").write_text(json.dumps({"kind": "emit", **records.to_json(job)}))
    surroundings = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "edge.worker", tmp_path / "job.json", tmp_path / "events.jsonl"]
    subprocess.run(command, env=surroundings, check=True, timeout=LIMIT_S)
    for name in emitted.files:
        assert emitted.path(name).read_bytes() == (job.folder / emitted.files[name].file).read_bytes(), name


def test_lean_bookkeeping_changes_nothing_but_the_time(tiny: TinyNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    def lowered() -> bytes:
        return backend._lower(torch.export.load(tiny.program), tolerance=1.0)[0].buffer

    lean = lowered()
    monkeypatch.setattr(backend, "lean_bookkeeping", contextlib.nullcontext)
    assert lowered() == lean


def test_a_bundle_is_the_program_and_its_test_cases(emitted: Emitted) -> None:
    for precision in GATES:
        assert emitted.path(f"{precision}.pte").read_bytes() in emitted.path(f"{precision}.bpte").read_bytes()
        assert emitted.files[f"{precision}.bpte"].notes["test_cases"] == 2


def classifier_weight(job: EmitJob, precision: str) -> np.ndarray:
    """(classes, channels) as the file stores it: int8 with a scale for each class."""
    state = torch.export.load(job.program).state_dict
    (weight,) = [tensor.detach().numpy() for name, tensor in state.items() if name.endswith("classifier.weight")]
    if precision == "fp32":
        return weight
    scale = np.abs(weight).max(1, keepdims=True) / np.float32(127)
    return np.round(weight / scale).astype(np.int8)


@pytest.mark.parametrize("precision", GATES)
def test_a_flipped_weight_bit_is_caught(
    emitted: Emitted, tiny: TinyNetwork, sqnr: Sqnr, tmp_path: Path, precision: str
) -> None:
    weight = classifier_weight(emitted.job, precision)
    element = int(np.abs(weight.astype(np.float32)).argmax())
    flipped = {}
    for suffix in ("pte", "bpte"):
        content = bytearray(emitted.path(f"{precision}.{suffix}").read_bytes())
        assert content.count(weight.tobytes()) == 1
        sign = content.find(weight.tobytes()) + (element + 1) * weight.itemsize - 1
        content[sign] ^= 0x80
        flipped[suffix] = tmp_path / f"flipped.{suffix}"
        flipped[suffix].write_bytes(content)
    got, reference = emitted.logits(f"{precision}.pte", flipped["pte"]), emitted.logits(f"{precision}.pte")
    assert sqnr(tiny.oracle["logits"], got) < GATES[precision]
    assert np.array_equal(
        np.delete(got, element // weight.shape[1], 1), np.delete(reference, element // weight.shape[1], 1)
    )
    bundle = emitted.run(f"{precision}.bpte", flipped["bpte"])
    if bundle.outputs is None:
        assert "flipped.bpte misses its own test case" in bundle.reason
    else:  # a test case asks for no more than the gate's largest error, the check for its SQNR too
        assert precision == "int8"
        assert sqnr(tiny.oracle["logits"], bundle.outputs["logits"]) < GATES[precision]


@pytest.mark.parametrize("suffix", ["pte", "bpte"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_an_error_in_words(emitted: Emitted, tmp_path: Path, suffix: str, kept: float) -> None:
    content = emitted.path(f"fp32.{suffix}").read_bytes()
    truncated = tmp_path / f"truncated.{suffix}"
    truncated.write_bytes(content[: int(kept * len(content))])
    run = emitted.run(f"fp32.{suffix}", truncated)
    assert run.outputs is None
    assert f"truncated.{suffix} is not a whole" in run.reason


def emit_here(job: EmitJob, program: ExportedProgram) -> list[EmittedFile]:
    """The fp32 files of a program, without a worker."""
    path = job.folder.with_suffix(".pt2")
    torch.export.save(program, path)
    job = replace(job, program=path)
    return backend.emit(job, backend.prepare(job), "fp32")


Edit = Callable[[torch.fx.GraphModule], None]


def tanh_gelu(network: torch.fx.GraphModule) -> None:
    for node in network.graph.find_nodes(op="call_function", target=aten.gelu.default):
        node.kwargs = {"approximate": "tanh"}


def without_batch_norm(network: torch.fx.GraphModule) -> None:
    for node in network.graph.find_nodes(op="call_function", target=aten.batch_norm.default):
        node.replace_all_uses_with(node.args[0])
        network.graph.erase_node(node)


def swapped_channels(network: torch.fx.GraphModule) -> None:
    for node in network.graph.find_nodes(op="call_function", target=aten.cat.default)[:1]:
        first, rest = node.args[0]
        node.args = ([rest, first], *node.args[1:])


def nothing(network: torch.fx.GraphModule) -> None:
    pass


@pytest.mark.parametrize("fault", [tanh_gelu, without_batch_norm, swapped_channels])
def test_another_network_is_below_the_gate(tiny: TinyNetwork, sqnr: Sqnr, tmp_path: Path, fault: Edit) -> None:
    quality = {}
    for edit in (nothing, fault):
        network = torch.export.load(tiny.program).module(check_guards=False)
        edit(network)
        network.recompile()
        job = tiny.job("executorch", tmp_path / edit.__name__, "fp32")
        file = emit_here(job, torch.export.export(network, (torch.zeros(1, 3, SIZE, SIZE),)))[0]
        run = RunJob(
            file.runtime, job.folder / file.file, file.inputs, file.outputs, tiny.check_inputs, tmp_path / "npz"
        )
        quality[edit] = sqnr(tiny.oracle["logits"], worker.run_all(run)[0]["logits"])
    assert quality[nothing] >= GATES["fp32"] > quality[fault]


def test_a_network_with_four_outputs(tiny: TinyNetwork, sqnr: Sqnr, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FasterNetPyramid(Config(16, (1, 1, 1, 1), "gelu"))
    with np.load(tiny.calibration) as calibration, np.load(tiny.check_inputs) as check:
        settle_batch_norm(network, torch.from_numpy(calibration["image"]))
        images = torch.from_numpy(check["image"])
    lowered = lower(torch.export.export(network, (images[:1],)), images)
    torch.export.save(lowered.program, tmp_path / "pyramid.pt2")
    names = tuple(f"features_{stage}" for stage in range(4))
    job = tiny.job("executorch", tmp_path / "files", *GATES)
    job = replace(job, program=tmp_path / "pyramid.pt2", outputs=names)
    with torch.no_grad():
        oracle = dict(zip(names, (x.numpy() for x in network.double()(images.double())), strict=True))
    prepared = backend.prepare(job)
    for precision, gate in GATES.items():
        for file in backend.emit(job, prepared, precision):
            assert [port.layout for port in file.outputs] == ["NCHW"] * 4
            results = tmp_path / "results.npz"
            run = RunJob(file.runtime, job.folder / file.file, file.inputs, file.outputs, tiny.check_inputs, results)
            outputs, _ = worker.run_all(run)
            assert {name: sqnr(oracle[name], outputs[name]) >= gate for name in names} == dict.fromkeys(names, True)
