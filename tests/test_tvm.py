"""TVM's libraries: right on the host, for the right machine, the same twice, and caught when they are wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import elf
import numpy as np
import pytest
import torch
import tvm

from conftest import Sqnr, TinyNetwork
from edge import processor, targets, worker
from edge.backends import tvm as backend
from edge.kernels import activation, gemm, plain
from edge.kernels.core import Core
from edge.kernels.pointwise import Pointwise
from edge.kernels.pointwise_problem import PointwiseProblem
from edge.records import EmitJob, EmittedFile, RunJob, to_json

GATE_DB = 100
WEIGHTS = "__tvm_ffi__library_bin"
TARGET = "cortex-a72"


def job_for(tiny: TinyNetwork, folder: Path, target: str = TARGET) -> EmitJob:
    return tiny.job("tvm", folder, "fp32", target=targets.load(target).model_dump(mode="json"))


def emit(job: EmitJob, prepared: backend.Prepared | None = None) -> tuple[EmittedFile, ...]:
    return tuple(backend.emit(job, prepared or backend.prepare(job), "fp32"))


def run(job: EmitJob, file: EmittedFile, library: Path | None = None) -> dict[str, np.ndarray]:
    results = job.folder / "results.npz"
    library = library or job.folder / file.file
    outputs, _ = worker.run_all(RunJob("tvm", library, file.inputs, file.outputs, job.check_inputs, results))
    return outputs


def in_a_worker(job: EmitJob | RunJob, folder: Path, **environment: str) -> list[dict]:
    """The events of a worker process; the last is the exit status."""
    kind = "emit" if isinstance(job, EmitJob) else "run"
    (folder / "job.json").write_text(json.dumps({"kind": kind, **to_json(job)}))
    command = [sys.executable, "-m", "edge.worker", str(folder / "job.json"), str(folder / "events.jsonl")]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [*map(json.loads, lines), {"event": "exit", "status": done.returncode}]


Emitted = tuple[EmitJob, dict[str, EmittedFile]]


@pytest.fixture(scope="session")
def prepared(tiny: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> backend.Prepared:
    return backend.prepare(job_for(tiny, tmp_path_factory.mktemp("tvm")))


@pytest.fixture(scope="session")
def emitted(tiny: TinyNetwork, prepared: backend.Prepared, tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    job = job_for(tiny, tmp_path_factory.mktemp("tvm"))
    return job, {file.runs_on: file for file in emit(job, prepared)}


def test_the_hosts_library_passes_the_fp32_gate(tiny: TinyNetwork, emitted: Emitted, sqnr: Sqnr) -> None:
    job, files = emitted
    logits = run(job, files["host"])["logits"]
    assert sqnr(tiny.oracle["logits"], logits) >= GATE_DB


def test_the_error_is_that_of_eager_float32(tiny: TinyNetwork, emitted: Emitted) -> None:
    job, files = emitted
    network = torch.export.load(tiny.program).module()
    with np.load(tiny.check_inputs) as samples, torch.no_grad():
        eager = np.concatenate([network(torch.from_numpy(image[None])).numpy() for image in samples["image"]])
    oracle = tiny.oracle["logits"]
    rms = [np.sqrt(((got - oracle) ** 2).mean()) for got in (run(job, files["host"])["logits"], eager)]
    assert rms[0] <= 4 * rms[1]


def test_the_weights_are_counted(tiny: TinyNetwork, emitted: Emitted) -> None:
    _, files = emitted
    parameters = torch.export.load(tiny.program).state_dict
    convolutions = sum(p.numel() * 4 for name, p in parameters.items() if p.ndim >= 2)
    assert files["host"].notes["weights_bytes"] >= convolutions


def test_kernels_that_no_template_made_are_named_with_their_share_of_the_time(emitted: Emitted) -> None:
    _, files = emitted
    assert "mean" in files["host"].notes[backend.NOT_OURS]
    assert files["host"].notes[backend.NOT_OURS] == files["target"].notes[backend.NOT_OURS]


def test_the_targets_library_is_for_its_machine_with_the_hosts_weights(
    emitted: Emitted,
) -> None:
    job, files = emitted
    target, host = (elf.read(job.folder / files[where].file) for where in ("target", "host"))
    assert (target.machine, host.machine) == ("aarch64", os.uname().machine)
    assert target.bytes_of(WEIGHTS) == host.bytes_of(WEIGHTS), "program and weights are the verified ones"
    kernels = {name for name in target.symbols if name.startswith("__tvm_ffi_")}
    assert kernels == {name for name in host.symbols if name.startswith("__tvm_ffi_")}
    assert len(kernels) > 10
    assert "__TVMBackendParallelLaunch" in target.symbols


def test_the_hosts_own_target_needs_one_file(tiny: TinyNetwork, prepared: backend.Prepared, tmp_path: Path) -> None:
    own = targets.baseline(os.uname().machine).name
    (file,) = emit(job_for(tiny, tmp_path, own), prepared)
    assert (file.file, file.runs_on) == (f"tiny.fp32.{own}.so", "host")


@pytest.mark.slow
def test_a_host_without_the_targets_instructions_checks_a_library_of_its_own(
    tiny: TinyNetwork, prepared: backend.Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = processor.cpuinfo()["flags"].replace("avx512", "")
    monkeypatch.setattr(processor, "cpuinfo", lambda: {"flags": flags})
    theirs, ours = emit(job_for(tiny, tmp_path, "x86-64-v4"), prepared)
    assert (theirs.runs_on, ours.runs_on) == ("target", "host")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cortex-a53", "cortex-a76", "pixel-8"])
def test_other_targets_link(tiny: TinyNetwork, prepared: backend.Prepared, tmp_path: Path, name: str) -> None:
    file, _ = emit(job_for(tiny, tmp_path, name), prepared)
    assert file.runs_on == "target"
    assert elf.read(tmp_path / file.file).machine == "aarch64"


@pytest.mark.slow
def test_the_same_program_gives_the_same_bytes(tiny: TinyNetwork, tmp_path: Path) -> None:
    written = []
    for seed in ("1", "2"):
        job = job_for(tiny, tmp_path / seed)
        (tmp_path / f"log{seed}").mkdir()
        events = in_a_worker(job, tmp_path / f"log{seed}", PYTHONHASHSEED=seed)
        assert events[-2]["event"] == "emitted", events
        written.append({path.name: path.read_bytes() for path in job.folder.iterdir()})
    assert len(written[0]) == 2
    assert written[0] == written[1]


# Faults: each must fail the gate that the good library passes.


def change_weights(tiny: TinyNetwork, library: Path, changed: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Change the weights of the last block's second pointwise convolution inside the library, where they are packed."""
    name = next(n for n in reversed(torch.export.load(tiny.program).state_dict) if n.endswith("project.weight"))
    weights = torch.export.load(tiny.program).state_dict[name].detach().numpy()[:, :, 0, 0]
    with np.load(tiny.check_inputs) as samples:
        positions = (samples["image"].shape[-1] // 32) ** 2
    problem = PointwiseProblem(positions, weights.shape[1], weights.shape[0], shortcut="after")
    tile = Pointwise().default(problem, Core.of(targets.load(TARGET)))
    old, new = (gemm.pack(matrix, tile).tobytes() for matrix in (weights, change(weights.copy())))
    data = library.read_bytes()
    assert data.count(old) == 1
    changed.write_bytes(data.replace(old, new))
    return changed


def flip_a_bit(weights: np.ndarray) -> np.ndarray:
    bits = weights.view(np.uint32)
    bits.flat[np.abs(weights).argmax()] ^= np.uint32(1 << 21)
    return weights


def swap_two_channels(weights: np.ndarray) -> np.ndarray:
    weights[[0, 1]] = weights[[1, 0]]
    return weights


@pytest.mark.parametrize("change", [flip_a_bit, swap_two_channels])
def test_changed_weights_fail_the_gate(
    tiny: TinyNetwork,
    emitted: Emitted,
    sqnr: Sqnr,
    tmp_path: Path,
    change: Callable[[np.ndarray], np.ndarray],
) -> None:
    job, files = emitted
    library = job.folder / files["host"].file
    same = change_weights(tiny, library, tmp_path / "same.so", lambda weights: weights)
    assert sqnr(tiny.oracle["logits"], run(job, files["host"], same)["logits"]) >= GATE_DB
    faulty = change_weights(tiny, library, tmp_path / "faulty.so", change)
    assert sqnr(tiny.oracle["logits"], run(job, files["host"], faulty)["logits"]) < GATE_DB


def test_the_tanh_form_of_gelu_fails_the_gate(
    tiny: TinyNetwork, tmp_path: Path, sqnr: Sqnr, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tanh_form(x: tvm.tirx.PrimExpr) -> tvm.tirx.PrimExpr:
        c = tvm.tirx.const
        cubic = c(0.7978845608, "float32") * (x + c(0.044715, "float32") * x * x * x)
        return c(0.5, "float32") * x * (c(1.0, "float32") + tvm.tirx.tanh(cubic))

    monkeypatch.setitem(activation.EXPRESSIONS, "gelu", tanh_form)
    monkeypatch.setattr(activation, "gelu", tanh_form)
    job = job_for(tiny, tmp_path, targets.baseline(os.uname().machine).name)
    (file,) = emit(job)
    assert 20 < sqnr(tiny.oracle["logits"], run(job, file)["logits"]) < GATE_DB


@pytest.mark.parametrize("share", [0.0, 0.999])
def test_a_truncated_library_is_named_so(emitted: Emitted, tmp_path: Path, share: float) -> None:
    job, files = emitted
    whole = (job.folder / files["host"].file).read_bytes()
    library = tmp_path / "cut.so"
    library.write_bytes(whole[: int(len(whole) * share)])
    host = files["host"]
    events = in_a_worker(
        RunJob("tvm", library, host.inputs, host.outputs, job.check_inputs, tmp_path / "results.npz"), tmp_path
    )
    *_, failed, ended = events
    assert failed["event"] == "failed"
    assert ("cut.so is truncated" if share else "cut.so is not a shared library") in failed["reason"]
    assert ended["status"] == 0, "an error, not a crash"


def test_a_linker_that_fails_is_named(tiny: TinyNetwork, prepared: backend.Prepared, tmp_path: Path) -> None:
    job = job_for(tiny, tmp_path)
    profile = json.loads(json.dumps(job.target))
    profile["tvm"]["linker"]["options"] = ["--no-such-option"]
    with pytest.raises(RuntimeError, match=r"aarch64-linux-gnu-ld could not link tiny\.fp32\.cortex-a72\.so"):
        emit(replace(job, target=profile), prepared)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_respected(emitted: Emitted, threads: int) -> None:
    job, files = emitted
    code = (
        "import sys, tvm, edge.runtimes.tvm as runtime; from pathlib import Path\n"
        "runtime.load(Path(sys.argv[1]), (), (), int(sys.argv[2]))\n"
        "print(tvm.get_global_func('runtime.NumThreads')())"
    )
    command = [sys.executable, "-c", code, str(job.folder / files["host"].file), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == threads


def test_the_default_number_of_threads_is_the_noted_one(emitted: Emitted) -> None:
    _, files = emitted
    assert "one for each of the fastest cores, on x86-64 for every two" in files["host"].notes["threads by default"]
    logical = len(os.sched_getaffinity(0))
    code = "import tvm; print(tvm.get_global_func('runtime.NumThreads')())"
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    counted = logical // 2 if os.uname().machine == "x86_64" else logical
    assert 1 <= int(done.stdout) <= max(1, counted)


def test_the_pinned_ffi_can_serialise_an_expression() -> None:
    """apache-tvm-ffi 0.1.15 ends the interpreter here; the lock must not drift to it."""
    code = "import tvm; print(len(tvm.ir.save_json(tvm.tirx.IntImm('int32', 1))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"status {done.returncode}"
    assert int(done.stdout) > 0


class Mixture(torch.nn.Module):
    """Operators FasterNet has not: depthwise, pooling, LayerNorm, softmax, odd sizes, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 13, 3, stride=2, padding=1)
        self.depthwise = torch.nn.Conv2d(13, 13, 5, padding=2, groups=13)
        self.grouped = torch.nn.Conv2d(13, 26, 1)
        self.norm = torch.nn.LayerNorm(26)
        self.attend = torch.nn.Linear(26, 26)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.grouped(self.depthwise(self.stem(image))))
        tokens = self.norm(torch.nn.functional.max_pool2d(features, 2).flatten(2).transpose(1, 2))
        weights = torch.softmax(self.attend(tokens) @ tokens.transpose(1, 2), dim=-1)
        return features, (weights @ tokens).mean(1)


def test_a_network_that_is_not_ours_passes_too(tmp_path: Path, sqnr: Sqnr) -> None:
    torch.manual_seed(0)
    network = Mixture().eval()
    images = torch.randn(3, 3, 29, 29)
    torch.export.save(torch.export.export(network, (images[:1],)), tmp_path / "program.pt2")
    np.savez(tmp_path / "check.npz", image=images.numpy())
    profile = targets.baseline(os.uname().machine).model_dump(mode="json")
    folder = tmp_path / "out"
    folder.mkdir()
    job = EmitJob(
        backend="edge.backends.tvm",
        model="mixture",
        program=tmp_path / "program.pt2",
        inputs=("image",),
        outputs=("features", "pooled"),
        precisions=("fp32",),
        calibration=tmp_path / "check.npz",
        check_inputs=tmp_path / "check.npz",
        target=profile,
        folder=folder,
    )
    (file,) = emit(job)
    outputs = run(job, file)
    with torch.no_grad():
        oracle = network.double()(images.double())
    for name, reference in zip(job.outputs, oracle, strict=True):
        assert outputs[name].shape == reference.shape
        assert sqnr(reference.numpy(), outputs[name]) >= GATE_DB
    assert [port.layout for port in file.outputs] == ["NCHW", ""]


def test_a_kernel_that_cannot_be_transformed_is_left_as_it_is() -> None:
    """A prefix sum carries a value from one element to the next: no loop may be parallel or vectorised."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)
    def prefix_sum(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")) -> None:
        for i in range(64):
            with T.sblock("sum"):
                j = T.axis.opaque(64, i)
                T.reads(x[j], y[0:64])
                T.writes(y[j])
                y[j] = x[j] + T.if_then_else(j > 0, y[j - 1], T.float32(0))

    function, way = plain.schedule(prefix_sum, plain.Vectors(4, 32))
    assert way == "unscheduled"
    assert function.same_as(prefix_sum)
