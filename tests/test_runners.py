"""The native runners on the emulated core: what they answer is right, and whatever goes wrong has a reason."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import Sqnr, TinyNetwork
from edge import processes, targets, worker
from edge.devices import emulated, native
from edge.formats import FORMATS
from edge.records import EmitJob, EmittedFile, Port, RunJob
from edge.runners import artifacts, build
from edge.toolchains import arm64, environments, wheels

GATE_DB = 100
MARKERS = {"begin": 0xD5032E1F, "end": 0xD5032E3F}
"""``hint #112`` and ``hint #113`` as instruction words."""

Files = dict[str, tuple[EmitJob, EmittedFile]]


@dataclass(frozen=True)
class Answer:
    """What a runner answered: its events in order, its exit status, and the outputs it wrote."""

    events: list[dict[str, Any]]
    status: int
    outputs: dict[str, np.ndarray]

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]


def command(job: RunJob, plan: native.Plan, folder: Path, target: str = "cortex-a72") -> list[str]:
    """What starts a runner on the emulated core, its inputs written; the bundle's folder is where it is run."""
    folder.mkdir(parents=True, exist_ok=True)
    native.write_inputs(job, plan.samples, folder)
    runner = [*native.START, *native.arguments(job, plan, str(job.artifact), str(folder))]
    return [*emulated.command(targets.load(target)), *runner]


def start(job: RunJob, line: list[str]) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(line, cwd=build.bundle(job.runtime), env=emulated.environment(), text=True, **pipes)


def ask(job: RunJob, plan: native.Plan, folder: Path, target: str = "cortex-a72") -> Answer:
    """Run it to its end. Every line of its answer must be an event."""
    runner = start(job, command(job, plan, folder, target))
    answer, _ = runner.communicate()
    events = [json.loads(line) for line in answer.splitlines()]
    outputs = {}
    if runner.returncode == 0:
        for name, port in zip(native.output_names(job), job.outputs, strict=True):
            values = np.fromfile(folder / name, "<f4").reshape(plan.samples, *port.shape[1:])
            outputs[port.name] = values.transpose(0, 3, 1, 2) if port.layout == "NHWC" else values
    return Answer(events, runner.returncode, outputs)


def job_for(emitted: tuple[EmitJob, EmittedFile], folder: Path) -> RunJob:
    job, file = emitted
    artifact = artifacts.prepare(file.runtime, job.folder / file.file, folder)
    return RunJob(file.runtime, artifact, file.inputs, file.outputs, job.check_inputs, folder / "results.npz")


def emit(job: EmitJob, format_name: str, environment: str = "base") -> Files:
    """The files of every precision that run on the target, by runtime and precision."""
    backend = f"edge.backends.{format_name}"
    emissions = processes.emit(replace(job, backend=backend), environment, limit_s=600)
    assert {p: e.reason for p, e in emissions.items()} == dict.fromkeys(job.precisions, "")
    return {
        f"{file.runtime} {precision}": (job, file)
        for precision, emission in emissions.items()
        for file in emission.files
        if not file.file.endswith(".host.so")
    }


def emit_all(job: EmitJob, quantised: bool) -> Files:
    """Every artifact of a network that a native runner takes."""
    folders = {name: job.folder / name for name in ("tvm", "executorch", "tflite_litert")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    both = ("fp32", "int8") if quantised else ("fp32",)
    environment = FORMATS["tflite"].converters["litert"].environment
    environments.ensure(environment, print)
    return {
        **emit(replace(job, folder=folders["tvm"], precisions=("fp32",)), "tvm"),
        **emit(replace(job, folder=folders["executorch"], precisions=both), "executorch"),
        **emit(replace(job, folder=folders["tflite_litert"], precisions=both), "tflite_litert", environment),
    }


@pytest.fixture(scope="module")
def files(tiny: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The tiny network, for a target whose int8 may lose so much that no layer is left in float: bits are compared."""
    target = targets.load("cortex-a72").model_dump(mode="json")
    target["gates"]["int8"]["sqnr_db"] = 10.0
    return emit_all(tiny.job("", tmp_path_factory.mktemp("runners") / "files", target=target), quantised=True)


class SumAndDifference(torch.nn.Module):
    """Nothing in it may be swapped: not its inputs, not its outputs."""

    def forward(self, right: torch.Tensor, left: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return left + 3 * right, left - right


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, dict[str, np.ndarray]]:
    """A network with two inputs and two outputs of one shape, their names not in the alphabet's order; its answers."""
    folder = tmp_path_factory.mktemp("pairs")
    generator = np.random.default_rng(0)
    names = ("right", "left")
    samples = {name: generator.standard_normal((3, 4, 8, 8)).astype(np.float32) for name in names}
    network = SumAndDifference()
    one = tuple(torch.from_numpy(samples[name][:1]) for name in names)
    torch.export.save(torch.export.export(network, one), folder / "program.pt2")
    np.savez(folder / "samples.npz", **samples)
    job = EmitJob(
        backend="",
        model="pair",
        program=folder / "program.pt2",
        inputs=names,
        outputs=("sum", "difference"),
        precisions=("fp32",),
        calibration=folder / "samples.npz",
        check_inputs=folder / "samples.npz",
        target=targets.load("cortex-a72").model_dump(mode="json"),
        folder=folder / "files",
    )
    answers = network(*(torch.from_numpy(samples[name].astype(np.float64)) for name in names))
    return emit_all(job, quantised=False), dict(zip(job.outputs, (a.numpy() for a in answers), strict=True))


FP32 = ["tvm fp32", "executorch fp32", "litert fp32"]


# Without the emulated core: what is sent, and how a bundle is named.


def test_every_runtime_that_devices_ask_for_has_a_runner() -> None:
    assert set(build.RECIPES) == set(native.RUNTIMES)


def test_a_bundles_name_tells_its_content(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = build.RECIPES["tvm"]
    for name in (*build.SHARED, recipe.source):
        (tmp_path / name).write_bytes((build.SOURCES / name).read_bytes())
    before = build._digest(recipe)
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    assert build._digest(recipe) == before
    (tmp_path / recipe.source).write_text("// another")
    after = build._digest(recipe)
    assert after != before
    monkeypatch.setattr(wheels, "digest", lambda name: "other wheels")
    assert build._digest(recipe) not in (before, after)


def flat_buffer(program: bytes, identifier: bytes = b"BP08", size: int | None = None) -> bytes:
    """The least that is a bundle: a root table with a version and the program."""
    fields = struct.pack("<HHHHH", 10, 12, 4, 0, 8)  # sizes of this list and of the table; version, suites, program
    table = struct.pack("<iII", 12, 3, 4) + struct.pack("<I", len(program) if size is None else size)
    return struct.pack("<I", 20) + identifier + fields.ljust(12, b"\0") + table + program


def test_the_program_inside_a_bundle_is_what_travels(tmp_path: Path) -> None:
    bundle = tmp_path / "a.fp32.bpte"
    bundle.write_bytes(flat_buffer(b"the program"))
    program = artifacts.prepare("executorch_bundled", bundle, tmp_path)
    assert (program.name, program.read_bytes()) == ("a.fp32.pte", b"the program")
    assert artifacts.prepare("executorch", bundle, tmp_path) == bundle


@pytest.mark.parametrize(
    "content",
    [b"", b"BP08", flat_buffer(b"x", b"ET12"), flat_buffer(b"x", size=2), flat_buffer(b"the program")[:-1]],
)
def test_half_a_bundle_is_an_error_in_words(tmp_path: Path, content: bytes) -> None:
    bundle = tmp_path / "a.bpte"
    bundle.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.bpte is not a whole bundled program"):
        artifacts.prepare("executorch_bundled", bundle, tmp_path)


# The bundles.


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["tvm", "executorch", "litert"])
def test_a_bundle_is_whole_the_same_twice_and_built_without_a_warning(
    runtime: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = build.bundle(runtime)
    begin = time.monotonic()
    assert build.bundle(runtime) == bundle
    assert time.monotonic() - begin < 0.5, "it is there already"
    held = {path.name for path in (bundle / "lib").iterdir()}
    assert all(set(build._needs(path)) <= held for path in (bundle / "run", *(bundle / "lib").iterdir()))
    words = np.frombuffer((bundle / "run").read_bytes()[: (bundle / "run").stat().st_size // 4 * 4], "<u4")
    assert {name: int((words == word).sum()) for name, word in MARKERS.items()} == {"begin": 1, "end": 1}

    monkeypatch.setattr(build, "RUNNERS", tmp_path)
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-Werror"))
    old = tmp_path / f"{runtime}-0123456789abcdef"
    old.mkdir()
    again = build.bundle(runtime)
    assert (again / "run").read_bytes() == (bundle / "run").read_bytes()
    assert not old.exists()


# Runs.


@pytest.mark.slow
@pytest.mark.parametrize("run", [*FP32, "executorch_bundled fp32"])
def test_an_artifact_reaches_its_gate_on_the_targets_core(
    files: Files, tiny: TinyNetwork, sqnr: Sqnr, tmp_path: Path, run: str
) -> None:
    job = job_for(files[run], tmp_path)
    answer = ask(job, native.Plan(samples=4), tmp_path)
    assert (answer.status, answer.last["event"]) == (0, "ran"), answer.events
    assert sqnr(tiny.oracle["logits"], answer.outputs["logits"]) >= GATE_DB


@pytest.mark.slow
def test_a_bundle_gets_the_answer_of_its_program(files: Files, tmp_path: Path) -> None:
    """And says so. Where its program has not run, it runs."""
    device = emulated.Emulated(targets.load("cortex-a72"))
    device.ready(print)
    runs = {}
    for name in ("executorch fp32", "executorch_bundled fp32", "executorch_bundled int8"):
        job, file = files[name]
        results = tmp_path / name / "outputs.npz"
        results.parent.mkdir()
        asked = RunJob(file.runtime, job.folder / file.file, file.inputs, file.outputs, job.check_inputs, results)
        runs[name] = device.run(asked)
    program, bundle, other = runs.values()
    assert (program.remark, other.remark) == ("", "")
    assert bundle == replace(program, remark="the program in it is tiny.fp32.pte, byte for byte, which ran")
    assert other.executed != program.executed


@pytest.mark.slow
@pytest.mark.parametrize("run", ["executorch int8", "litert int8"])
def test_integers_have_the_hosts_bits(files: Files, tmp_path: Path, run: str) -> None:
    assert "mixed_precision" not in files[run][1].notes
    job = job_for(files[run], tmp_path)
    there = ask(job, native.Plan(samples=4), tmp_path).outputs
    here, _ = worker.run_all(job)
    assert there["logits"].tobytes() == here["logits"].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("run", FP32)
def test_several_inputs_and_outputs_keep_their_places(
    pairs: tuple[Files, dict[str, np.ndarray]], sqnr: Sqnr, tmp_path: Path, run: str
) -> None:
    emitted, expected = pairs
    answer = ask(job_for(emitted[run], tmp_path), native.Plan(samples=3), tmp_path)
    assert answer.status == 0, answer.events
    for name, values in expected.items():
        assert sqnr(values, answer.outputs[name]) >= GATE_DB


@pytest.mark.slow
@pytest.mark.parametrize("run", FP32)
def test_the_answer_holds_what_was_asked_for(files: Files, tmp_path: Path, run: str) -> None:
    job = job_for(files[run], tmp_path)
    loaded, ran = ask(job, native.Plan(samples=2, warmups=1, repeats=3), tmp_path).events
    assert (loaded["event"], ran["event"]) == ("loaded", "ran")
    bases = {Path(library["path"]): library["base"] for library in loaded["libraries"]}
    bundle = build.bundle(job.runtime)
    assert {bundle / "run", bundle / "lib" / "libc.so.6"} <= bases.keys()
    assert not [path for path in bases if path != job.artifact and bundle not in path.parents]
    assert (job.artifact in bases) == (job.runtime == "tvm")
    assert len(set(bases.values())) == len(bases)
    assert (len(ran["seconds"]), len(ran["repeats"]), ran["outputs"]) == (2, 3, [[1, 10]])
    assert min(*ran["seconds"], *ran["repeats"], ran["peak_memory_kib"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("run", FP32)
def test_the_threads_asked_for_are_those_that_work(files: Files, tmp_path: Path, run: str) -> None:
    def threads(asked: int) -> int:
        """Most threads that the emulator had at any time, its own included."""
        job = replace(job_for(files[run], tmp_path), threads=asked)
        runner = start(job, command(job, native.Plan(samples=1, repeats=8), tmp_path))
        seen = 0
        while runner.poll() is None:
            found = re.search(r"Threads:\s+(\d+)", Path(f"/proc/{runner.pid}/status").read_text())
            seen = max(seen, int(found.group(1)) if found else 0)
            time.sleep(0.02)
        assert runner.returncode == 0
        return seen

    assert threads(3) - threads(1) == 2


# What goes wrong.


@pytest.mark.slow
@pytest.mark.parametrize("run", FP32)
@pytest.mark.parametrize("kept", [0, 3, 0.01, 0.5, 0.99])
def test_a_truncated_artifact_fails_with_a_reason(files: Files, tmp_path: Path, run: str, kept: float) -> None:
    job = job_for(files[run], tmp_path)
    content = job.artifact.read_bytes()
    broken = tmp_path / f"broken{job.artifact.suffix}"
    broken.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    answer = ask(replace(job, artifact=broken), native.Plan(samples=1), tmp_path)
    assert (answer.status, answer.last["event"]) == (1, "failed")
    assert answer.last["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("run", FP32)
def test_another_artifact_than_the_ports_say_fails(
    files: Files, pairs: tuple[Files, dict[str, np.ndarray]], tmp_path: Path, run: str
) -> None:
    job = job_for(files[run], tmp_path)
    other = job_for(pairs[0][run], tmp_path)
    answer = ask(replace(job, artifact=other.artifact), native.Plan(samples=1), tmp_path)
    assert (answer.status, answer.last["event"]) == (1, "failed")


@pytest.mark.slow
def test_an_unknown_name_fails(files: Files, tmp_path: Path) -> None:
    job = job_for(files["litert fp32"], tmp_path)
    renamed = (replace(job.outputs[0], tensor="digits"),)
    answer = ask(replace(job, outputs=renamed), native.Plan(samples=1), tmp_path)
    assert (answer.status, answer.last) == (1, {"event": "failed", "reason": "the signature has no digits"})


@pytest.mark.slow
def test_the_limit_ends_it(files: Files, tmp_path: Path) -> None:
    begin = time.monotonic()
    answer = ask(job_for(files["tvm fp32"], tmp_path), native.Plan(samples=1, repeats=100_000, limit_s=2), tmp_path)
    assert (answer.status, answer.last) == (1, {"event": "failed", "reason": "passed its limit of 2 s"})
    assert time.monotonic() - begin < 10


@pytest.mark.slow
def test_a_full_disk_is_noticed(files: Files, tmp_path: Path) -> None:
    (tmp_path / "output_0.f32").symlink_to("/dev/full")
    answer = ask(job_for(files["tvm fp32"], tmp_path), native.Plan(samples=1), tmp_path)
    assert (answer.status, answer.last["event"]) == (1, "failed")
    assert "No space left on device" in answer.last["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda line: line[:-1], lambda line: [*line[:-1], "output_0.f32"]])
def test_a_wrong_command_line_fails(files: Files, tmp_path: Path, change: Callable[[list[str]], list[str]]) -> None:
    job = job_for(files["tvm fp32"], tmp_path)
    runner = start(job, change(command(job, native.Plan(samples=1), tmp_path)))
    answer, _ = runner.communicate()
    assert (runner.returncode, json.loads(answer)["event"]) == (1, "failed")


@pytest.mark.slow
def test_an_input_of_another_size_fails(files: Files, tmp_path: Path) -> None:
    job = job_for(files["tvm fp32"], tmp_path)
    line = command(job, native.Plan(samples=2), tmp_path)
    image = tmp_path / native.input_names(job)[0]
    image.write_bytes(image.read_bytes()[:-4])
    runner = start(job, line)
    answer, _ = runner.communicate()
    assert (runner.returncode, json.loads(answer)["event"]) == (1, "failed")
    assert "bytes" in json.loads(answer)["reason"]


@pytest.fixture(scope="module")
def dot_product(tmp_path_factory: pytest.TempPathFactory) -> RunJob:
    """A library for a Cortex-A72 that was built with the dot product, which that core lacks."""
    import dot_product

    from edge.backends.tvm import library

    folder = tmp_path_factory.mktemp("dot")
    target = targets.load("cortex-a72")
    assert target.tvm is not None
    executable = dot_product.executable(target.tvm.model_dump(mode="json")["target"])
    executable.export_library(str(folder / "dot.so"), fcompile=library._link_with(target))
    np.savez(folder / "values.npz", values=np.arange(16, dtype=np.float32)[None])
    ports = (Port("values", (1, 16), "", "main(0)"),), (Port("sums", (1, 4), "", "main()[0]"),)
    return RunJob("tvm", folder / "dot.so", *ports, folder / "values.npz", folder / "results.npz")


@pytest.mark.slow
def test_an_instruction_the_core_lacks_is_named_with_its_place(dot_product: RunJob, tmp_path: Path) -> None:
    answer = ask(dot_product, native.Plan(samples=1), tmp_path)
    assert (answer.status, answer.last["event"]) == (3, "illegal")
    word = int(answer.last["word"], 16)
    assert word & 0xFFE0FC00 == 0x4E809400, "SDOT of 16 bytes"
    assert answer.last["library"] == str(dot_product.artifact)
    assert answer.last["symbol"] == "squares_compute_"
    objdump = arm64.program("aarch64-linux-gnu-objdump").run("-d", dot_product.artifact)
    (line,) = [line for line in objdump.stdout.splitlines() if "sdot" in line]
    assert int(line.split(":")[0], 16) == answer.last["offset"]


@pytest.mark.slow
def test_a_core_that_has_the_instruction_runs_it(dot_product: RunJob, tmp_path: Path) -> None:
    answer = ask(dot_product, native.Plan(samples=1), tmp_path, target="cortex-a76")
    assert answer.status == 0
    expected = (np.arange(16.0).reshape(4, 4) ** 2).sum(1)
    np.testing.assert_array_equal(answer.outputs["sums"].ravel(), expected)
