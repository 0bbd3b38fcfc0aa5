"""What native runners are asked, and that an answer is believed only if a runner could have given it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.devices import native
from edge.devices.native import Plan
from edge.processes import Exit, Library, Run
from edge.records import EmittedFile, Port, RunJob, Tool
from edge.toolchains import arm64

IMAGE = Port("image", (1, 4, 5, 3), "NHWC", "args_0:0")
LOGITS = Port("logits", (1, 10), "", "out[0]")
FEATURES = Port("features", (1, 2, 3, 6), "NHWC", "out[1]")
PLAN = Plan(samples=2, warmups=1, repeats=3, limit_s=9.5)
LOADED = {"event": "loaded", "libraries": [{"path": "/board/run", "base": 4096}]}
RAN = {
    "event": "ran",
    "seconds": [0.5, 0.4],
    "repeats": [0.1, 0.3, 0.2],
    "outputs": [[1, 10], [1, 2, 3, 6]],
    "peak_memory_kib": 2048,
}
ENDED = Exit("", 1.0, 3, 0)


@pytest.fixture
def job(tmp_path: Path) -> RunJob:
    samples = np.arange(3 * 3 * 4 * 5, dtype=np.float32).reshape(3, 3, 4, 5)
    np.savez(tmp_path / "check.npz", image=samples)
    return RunJob(
        "litert", tmp_path / "a.tflite", (IMAGE,), (LOGITS, FEATURES), tmp_path / "check.npz", tmp_path / "r.npz", 2
    )


def lines(*events: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def answered(job: RunJob, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write what a runner leaves; logits (2, 10), and features (2, H, W, C) as the artifact has them."""
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((2, 10)).astype(np.float32)
    features = generator.standard_normal((2, 2, 3, 6)).astype(np.float32)
    logits.tofile(folder / "output_0.f32")
    features.tofile(folder / "output_1.f32")
    return logits, features


def read(job: RunJob, folder: Path, answer: bytes, end: Exit = ENDED) -> Run:
    return native.read(job, PLAN, folder, answer, end, native.title(job.runtime))


def test_inputs_are_raw_samples_in_the_artifacts_layout(job: RunJob, tmp_path: Path) -> None:
    native.write_inputs(job, 2, tmp_path)
    written = np.fromfile(tmp_path / "input_0.f32", "<f4").reshape(2, 4, 5, 3)
    with np.load(job.check_inputs) as samples:
        assert np.array_equal(written, samples["image"][:2].transpose(0, 2, 3, 1))


def test_a_runner_is_told_everything_on_its_command_line(job: RunJob) -> None:
    assert native.arguments(job, PLAN, "/board/job/a.tflite", "/board/job") == [
        "/board/job/a.tflite",
        *("--threads", "2", "--samples", "2", "--warmups", "1", "--repeats", "3", "--limit", "10"),
        *("--input", "args_0:0=/board/job/input_0.f32:1x4x5x3"),
        *("--output", "out[0]=/board/job/output_0.f32"),
        *("--output", "out[1]=/board/job/output_1.f32"),
    ]


def test_an_answer_comes_back_in_the_pipelines_layout(job: RunJob, tmp_path: Path) -> None:
    logits, features = answered(job, tmp_path)
    run = read(job, tmp_path, lines(LOADED, RAN))
    assert run.reason == ""
    assert run.outputs is not None
    assert np.array_equal(run.outputs["logits"], logits)
    assert np.array_equal(run.outputs["features"], features.transpose(0, 3, 1, 2))
    assert (run.seconds, run.repeats, run.peak_memory_mb) == (0.2, (0.1, 0.3, 0.2), 2)
    assert run.libraries == (Library("/board/run", 4096),)
    assert run.runtime.startswith("LiteRT 2.")


def test_nan_is_an_output_for_the_gate_to_judge(job: RunJob, tmp_path: Path) -> None:
    answered(job, tmp_path)
    np.full(20, math.nan, np.float32).tofile(tmp_path / "output_0.f32")
    run = read(job, tmp_path, lines(LOADED, RAN))
    assert run.outputs is not None
    assert np.isnan(run.outputs["logits"]).all()


@pytest.mark.parametrize(
    ("answer", "end", "reason"),
    [
        (b"", Exit("", 1, 0, 0), "ended without an answer"),
        (lines(LOADED), Exit("", 1, 0, 0), "ended without an answer"),
        (lines(LOADED), Exit("exited with status 137", 1, 0, 137), "died with SIGKILL"),
        (lines(LOADED), Exit("died with SIGSEGV", 1, 0, -11), "died with SIGSEGV"),
        (lines(LOADED)[:20], Exit("ended after its limit of 5 s", 5, 0, -9), "ended after its limit of 5 s"),
        (lines(LOADED), Exit("exited with status 2; last line: oh", 1, 0, 2), "exited with status 2; last line: oh"),
        (lines({"event": "failed", "reason": "no such tensor"}), Exit("exited", 1, 0, 1), "no such tensor"),
        (b"Welcome to this board!\n" + lines(LOADED, RAN), ENDED, "not a runner's: 'Welcome to this board!'"),
        (b"\xff\x1b[31m\n", ENDED, "not a runner's"),
        (b"[1]\n", ENDED, "not a runner's"),
        (lines(RAN), ENDED, "not a runner's: KeyError: 'loaded'"),
        (lines(LOADED, {**RAN, "seconds": [0.5]}), ENDED, "1 seconds, 2 expected"),
        (lines(LOADED, {**RAN, "repeats": [0.1, math.nan, 0.1]}), ENDED, "each a finite number"),
        (lines(LOADED, {**RAN, "seconds": "soon"}), ENDED, "not a runner's"),
        (lines(LOADED, {**RAN, "outputs": [[10], [1, 2, 3, 6]]}), ENDED, "its outputs are [[10], [1, 2, 3, 6]]"),
    ],
)
def test_what_is_no_answer_is_the_reason(job: RunJob, tmp_path: Path, answer: bytes, end: Exit, reason: str) -> None:
    answered(job, tmp_path)
    run = read(job, tmp_path, answer, end)
    assert run.outputs is None
    assert reason in run.reason
    assert run.reason.isprintable()


@pytest.mark.slow
def test_an_illegal_instruction_is_named_with_its_place(job: RunJob, tmp_path: Path) -> None:
    """Slow the first time: the disassembler is one of the target's tools."""
    arm64.ensure()
    event = {"event": "illegal", "word": "4f80e021", "library": "/b/x.so", "offset": 64, "symbol": "fused_matmul"}
    end = Exit("exited with status 3", 1, 0, 3)
    place = "in fused_matmul, offset 0x40 of x.so, which this core lacks"
    assert read(job, tmp_path, lines(event), end).reason == f"executes sdot v1.4s, v1.16b, v0.4b[0] (4f80e021) {place}"
    unknown = read(job, tmp_path, lines({**event, "word": "00000000", "symbol": ""}), end).reason
    assert unknown == "executes udf #0 (00000000) in an unnamed function, offset 0x40 of x.so, which this core lacks"
    for wrong in ("", "4f80e021" * 2, None, "soon"):
        assert "does not tell which" in read(job, tmp_path, lines({**event, "word": wrong}), end).reason


@pytest.mark.parametrize("size", [None, 0, 79, 84])
def test_an_output_of_the_wrong_size_is_garbage(job: RunJob, tmp_path: Path, size: int | None) -> None:
    answered(job, tmp_path)
    file = tmp_path / "output_0.f32"
    if size is None:
        file.unlink()
    else:
        file.write_bytes(bytes(size))
    run = read(job, tmp_path, lines(LOADED, RAN))
    assert run.outputs is None
    assert run.reason == f"{size or 0} bytes of logits came back, 80 expected"


@pytest.mark.parametrize(
    ("runtime", "runs_on", "dtype", "obstacle"),
    [
        ("litert", "host", "float32", ""),
        ("tvm", "target", "float32", ""),
        ("tvm", "host", "float32", "compiled for this host, which is x86_64"),
        ("coreml", "host", "float32", "no native runner for coreml"),
        ("litert", "host", "int8", "native runners read and write float32; logits is int8"),
    ],
)
def test_an_obstacle_is_known_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, runtime: str, runs_on: str, dtype: str, obstacle: str
) -> None:
    monkeypatch.setattr(native.platform, "machine", lambda: "x86_64")
    logits = Port("logits", (1, 10), "", "out", dtype)
    assert native.obstacle(EmittedFile("a", runtime, Tool("", ""), (IMAGE,), (logits,), runs_on)) == obstacle
