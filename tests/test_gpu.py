"""GPU artifacts: the saved file through its own host in C on a software OpenCL driver, and what must fail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import elf
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import Sqnr, TinyNetwork
from edge import targets
from edge.backends import gpu
from edge.backends.gpu import archive
from edge.backends.gpu.network import Network
from edge.devices.find import find
from edge.devices.host import Host
from edge.devices.software_opencl import SoftwareOpenCl
from edge.processes import Run
from edge.records import EmitJob, EmittedFile, RunJob
from edge.runners import opencl_host
from edge.targets import Target
from edge.toolchains import arm64, debian, pocl

pytestmark = pytest.mark.slow  # the first of them unpacks the driver

PIXEL = targets.load("pixel-8")
GATES = {precision: PIXEL.gates[precision] for precision in ("fp32", "fp16")}
Plan = dict[str, Any]


@dataclass(frozen=True)
class Emitted:
    """A job with its files by precision."""

    job: EmitJob
    files: dict[str, EmittedFile]

    def artifact(self, precision: str) -> Path:
        return self.job.folder / self.files[precision].file


def emit(job: EmitJob, prepared: Network, *precisions: str) -> Emitted:
    return Emitted(job, {precision: gpu.emit(job, prepared, precision)[0] for precision in precisions})


def job_for(tiny: TinyNetwork, folder: Path, target: Target = PIXEL) -> EmitJob:
    return tiny.job("gpu", folder, target=target.model_dump(mode="json"))


@pytest.fixture(scope="module")
def prepared(tiny: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> Network:
    return gpu.prepare(job_for(tiny, tmp_path_factory.mktemp("gpu")))


@pytest.fixture(scope="module")
def emitted(tiny: TinyNetwork, prepared: Network, tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    return emit(job_for(tiny, tmp_path_factory.mktemp("gpu")), prepared, *GATES)


@pytest.fixture(scope="module")
def device() -> SoftwareOpenCl:
    device = find("software-opencl", PIXEL)
    assert isinstance(device, SoftwareOpenCl)
    device.ready(print)
    return device


RunFile = Callable[..., Run]


@pytest.fixture
def run(device: SoftwareOpenCl, emitted: Emitted, tiny: TinyNetwork, tmp_path: Path) -> RunFile:
    def run_file(artifact: Path, file: EmittedFile = emitted.files["fp32"], inputs: Path = tiny.check_inputs) -> Run:
        results = tmp_path / str(len(list(tmp_path.iterdir()))) / "outputs.npz"
        return device.run(RunJob(file.runtime, artifact, file.inputs, file.outputs, inputs, results))

    return run_file


@pytest.fixture
def changed(emitted: Emitted, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the fp32 artifact with some members changed."""

    def change(**changes: Callable[[bytes], bytes]) -> Path:
        members = archive.read(emitted.artifact("fp32"))
        suffixes = {name.rpartition(".")[2]: name for name in members}
        for suffix, function in changes.items():
            members[suffixes[suffix]] = function(members[suffixes[suffix]])
        archive.write(tmp_path / "changed.opencl", members)
        return tmp_path / "changed.opencl"

    return change


def in_plan(change: Callable[[Plan], None]) -> Callable[[bytes], bytes]:
    def function(content: bytes) -> bytes:
        plan = json.loads(content)
        change(plan)
        return json.dumps(plan).encode()

    return function


@pytest.mark.parametrize("precision", GATES)
def test_the_whole_network_holds_the_gate(
    precision: str, emitted: Emitted, run: RunFile, tiny: TinyNetwork, sqnr: Sqnr
) -> None:
    result = run(emitted.artifact(precision), emitted.files[precision])
    assert result.outputs is not None, result.reason
    gate = GATES[precision]
    oracle, logits = tiny.oracle["logits"], result.outputs["logits"]
    assert sqnr(oracle, logits) >= gate.sqnr_db
    assert np.abs(oracle - logits).max() <= (gate.max_rel or 0) * np.abs(oracle).max()
    assert "PoCL" in result.conditions["OpenCL device"]
    assert result.seconds is None, "a processor's seconds are no GPU's"


def test_half_the_bytes_make_half_the_precision(emitted: Emitted, run: RunFile, tiny: TinyNetwork, sqnr: Sqnr) -> None:
    single, half = (emitted.files[precision].notes for precision in ("fp32", "fp16"))
    assert half["weights_bytes"] < 0.51 * single["weights_bytes"]
    assert half["activations_bytes"] < 0.8 * single["activations_bytes"], "inputs and outputs stay float32"
    result = run(emitted.artifact("fp16"), emitted.files["fp16"])
    assert result.outputs is not None
    assert sqnr(tiny.oracle["logits"], result.outputs["logits"]) < 80


def test_the_same_program_gives_the_same_bytes(tiny: TinyNetwork, emitted: Emitted, tmp_path: Path) -> None:
    job = job_for(tiny, tmp_path)
    again = emit(job, gpu.prepare(job), *GATES)
    for precision in GATES:
        assert again.artifact(precision).read_bytes() == emitted.artifact(precision).read_bytes()


def test_the_target_decides_the_interface(tiny: TinyNetwork, prepared: Network, tmp_path: Path) -> None:
    (file,) = emit(job_for(tiny, tmp_path, targets.load("iphone-12")), prepared, "fp16").files.values()
    assert file.file == "tiny.fp16.iphone-12.metal"
    members = archive.read(tmp_path / file.file)
    assert list(members) == ["plan.json", "kernels.metal", "weights.bin"]
    assert json.loads(members["plan.json"])["api"] == "metal"
    assert members["kernels.metal"].count(b"metal_stdlib") == 1
    launched = {launch["kernel"] for launch in json.loads(members["plan.json"])["launches"]}
    assert set(re.findall(r"^kernel void (\w+)\(", members["kernels.metal"].decode(), re.MULTILINE)) == launched
    assert "only Apple's systems have" in Host().obstacle(file)
    with pytest.raises(ValueError, match="reached by nothing"):
        emit(job_for(tiny, tmp_path, targets.load("cortex-a72")), prepared, "fp32")


class Mixture(torch.nn.Module):
    """Operators FasterNet has not: depthwise, pooling, LayerNorm, softmax, resizing, odd sizes, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 13, 3, stride=2, padding=1)
        self.depthwise = torch.nn.Conv2d(13, 13, 5, padding=2, groups=13)
        self.pointwise = torch.nn.Conv2d(13, 26, 1)
        self.norm = torch.nn.LayerNorm(26)
        self.attend = torch.nn.Linear(26, 26)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(1, 3, 29, 29) to a map of 15 x 15, a vector, and a map of 16 x 16."""
        features = torch.relu(self.pointwise(self.depthwise(self.stem(image))))
        pooled = F.avg_pool2d(features, 3, 2, 1) + F.max_pool2d(features, 3, 2, 1)
        tokens = self.norm(F.max_pool2d(features, 2).flatten(2).transpose(1, 2))
        weights = torch.softmax(self.attend(tokens) @ tokens.transpose(1, 2), dim=-1)
        return features * torch.sigmoid(features), (weights @ tokens).mean(1), F.interpolate(pooled, scale_factor=2)


def test_a_network_that_is_not_ours_passes_too(device: SoftwareOpenCl, tmp_path: Path, sqnr: Sqnr) -> None:
    torch.manual_seed(0)
    network, images = Mixture().eval(), torch.randn(3, 3, 29, 29)
    torch.export.save(torch.export.export(network, (images[:1],)), tmp_path / "program.pt2")
    np.savez(tmp_path / "check.npz", image=images.numpy())
    with torch.no_grad():
        oracle = network.double()(images.double())
    names, check = ("features", "pooled", "resized"), tmp_path / "check.npz"
    profile = PIXEL.model_dump(mode="json")
    program = tmp_path / "program.pt2"
    job = EmitJob(gpu.__name__, "mixture", program, ("image",), names, (), check, check, profile, tmp_path)
    emitted = emit(job, gpu.prepare(job), *GATES)
    for precision, file in emitted.files.items():
        results = tmp_path / precision / "results.npz"
        run = device.run(RunJob("opencl", emitted.artifact(precision), file.inputs, file.outputs, check, results))
        assert run.outputs is not None, run.reason
        for name, reference in zip(names, oracle, strict=True):
            assert sqnr(reference.numpy(), run.outputs[name]) >= GATES[precision].sqnr_db


def test_it_is_named_where_it_is_not_checked(emitted: Emitted) -> None:
    file = emitted.files["fp32"]
    assert SoftwareOpenCl().obstacle(file) == ""
    assert "OpenCL artifacts only" in SoftwareOpenCl().obstacle(replace(file, runtime="metal"))
    assert Host().obstacle(file) == "built for a GPU with OpenCL"


# Faults: each must fail the gate, or be a reason, where the good file passes.


def test_swapped_channels_miss_the_gate(
    emitted: Emitted, run: RunFile, changed: Callable[..., Path], tiny: TinyNetwork, sqnr: Sqnr
) -> None:
    state = torch.export.load(tiny.program).state_dict
    name = next(n for n in reversed(state) if n.endswith("project.weight"))
    weights = np.ascontiguousarray(state[name].detach().numpy()[:, :, 0, 0].T)  # (in, out), as in HWIO
    swapped = weights.copy()
    swapped[:, [0, 1]] = weights[:, [1, 0]]

    def swap(content: bytes) -> bytes:
        assert content.count(weights.tobytes()) == 1
        return content.replace(weights.tobytes(), swapped.tobytes())

    same, faulty = run(changed()), run(changed(bin=swap))
    assert same.outputs is not None and faulty.outputs is not None
    assert sqnr(tiny.oracle["logits"], same.outputs["logits"]) >= 100
    assert sqnr(tiny.oracle["logits"], faulty.outputs["logits"]) < 40


def first_launch(**values: Any) -> Callable[[bytes], bytes]:
    return in_plan(lambda plan: plan["launches"][0].update(values))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"json": lambda content: content[:-9]}, "cannot be used: not JSON"),
        ({"json": lambda content: content + b"{}"}, "not JSON: something after the end"),
        ({"json": lambda content: b"[" * 1000}, "not JSON: too many brackets"),
        ({"json": in_plan(lambda plan: plan.update(version=2))}, "version 2, this program reads 1"),
        ({"json": in_plan(lambda plan: plan.update(api="metal"))}, "made for metal, not for OpenCL"),
        ({"json": in_plan(lambda plan: plan.pop("launches"))}, "launches is missing"),
        ({"json": in_plan(lambda plan: plan.update(outputs=7))}, "outputs is a number, not an array"),
        ({"json": in_plan(lambda plan: plan["buffers"][0].update(bytes=-4))}, "-4 is no size"),
        ({"json": in_plan(lambda plan: plan["buffers"][0].update(bytes=64))}, "does not fit its buffer"),
        ({"json": in_plan(lambda plan: plan["buffers"][-1].update(bytes=1 << 50))}, "than the device has"),
        ({"json": in_plan(lambda plan: plan["buffers"][1].update(bytes=1 << 30))}, "beyond the weights"),
        ({"json": first_launch(kernel="no_such")}, "no_such: no such kernel"),
        ({"json": first_launch(arguments=[0])}, "takes 2 arguments, the plan gives 1"),
        ({"json": first_launch(arguments=[0, 9999])}, "a buffer that the plan does not have"),
        ({"json": first_launch(local=[7, 1, 1])}, "not launched in whole groups"),
        ({"json": first_launch(local=[1 << 20, 1, 1], **{"global": [1 << 20, 1, 1]})}, "in groups of 1048576"),
        ({"json": in_plan(lambda plan: plan["inputs"][0].update(name="picture"))}, "picture where image was given"),
        ({"json": in_plan(lambda plan: plan["inputs"][0].update(shape=[3, 1, 64, 64]))}, "3x1x64x64 in the artifact"),
        ({"cl": lambda content: content.replace(b"float", b"flaot", 1)}, "the source does not compile: error"),
        ({"bin": lambda content: content[:1000]}, "beyond the weights, which have 1000 bytes"),
    ],
)
def test_what_cannot_be_run_is_a_reason(
    changes: dict[str, Callable[[bytes], bytes]], reason: str, changed: Callable[..., Path], run: RunFile
) -> None:
    result = run(changed(**changes))
    assert result.outputs is None
    assert reason in result.reason


@pytest.mark.parametrize(
    ("size", "reason"), [(0, "holds no plan.json"), (600, "truncated: plan.json"), (-4096, "truncated: weights.bin")]
)
def test_a_file_that_is_cut_short_is_named_so(
    size: int, reason: str, emitted: Emitted, run: RunFile, tmp_path: Path
) -> None:
    content = emitted.artifact("fp32").read_bytes()
    weights = len(archive.read(emitted.artifact("fp32"))["weights.bin"])
    (tmp_path / "cut.opencl").write_bytes(content[: size if size >= 0 else weights])
    result = run(tmp_path / "cut.opencl")
    assert result.outputs is None
    assert reason in result.reason


def test_a_sample_that_is_missing_is_a_reason(emitted: Emitted, run: RunFile, tmp_path: Path) -> None:
    file = emitted.files["fp32"]
    odd = replace(file, inputs=(replace(file.inputs[0], tensor="picture"),))
    assert "image where picture was given" in run(emitted.artifact("fp32"), odd).reason


def test_a_host_without_a_driver_says_so(emitted: Emitted, run: RunFile, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = pocl.environment
    nowhere = {"OCL_ICD_VENDORS": "/nowhere"}
    monkeypatch.setattr(pocl, "environment", lambda cache: {**environment(cache), **nowhere})
    result = run(emitted.artifact("fp32"))
    assert result.outputs is None
    assert result.reason == "the OpenCL driver has no platform"


def test_the_host_compiles_without_a_warning_here_and_for_arm(device: SoftwareOpenCl, tmp_path: Path) -> None:
    sources, options = sorted(opencl_host.SOURCES.glob("*.c")), (*opencl_host.OPTIONS, "-Werror")
    pocl.compile_program(sources, options, tmp_path / "run")
    arm64.ensure()
    headers = debian.folder(pocl.NAME) / "usr/include"
    sysroot = f"--sysroot={debian.folder(arm64.NAME)}"
    line = (sysroot, *options, "-idirafter", headers, "-o", tmp_path / "run.arm64", *sources)
    done = arm64.program("aarch64-linux-gnu-gcc").run(*line)
    assert done.returncode == 0, done.stderr
    assert elf.read(tmp_path / "run.arm64").machine == "aarch64"
