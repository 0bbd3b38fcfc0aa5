"""Worker processes: what exporters do on a bad day is a result with a reason, and never the end of the run."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import TinyNetwork
from edge import processes
from edge.processes import Emission
from edge.records import Port, RunJob


def emit(tiny: TinyNetwork, tmp_path: Path, backend: str, *precisions: str, limit_s: float = 60) -> dict[str, Emission]:
    job = replace(tiny.job("", tmp_path / "out", *precisions), backend=f"tests.faulty.{backend}")
    return processes.emit(job, environment="base", limit_s=limit_s)


def test_a_crash_costs_the_precision_that_crashed(tiny: TinyNetwork, tmp_path: Path):
    results = emit(tiny, tmp_path, "dies", "fp32", "int8", "fp16")
    assert [results[p].status for p in ("fp32", "int8", "fp16")] == ["emitted", "failed", "emitted"]
    assert "SIGSEGV" in results["int8"].reason
    assert "about to do something unwise" in results["int8"].reason


def test_a_hang_ends_at_its_limit_with_its_children(tiny: TinyNetwork, tmp_path: Path):
    begin = time.monotonic()
    results = emit(tiny, tmp_path, "hangs", "fp32", limit_s=3)
    assert time.monotonic() - begin < 20
    assert results["fp32"].status == "failed"
    assert "limit of 3 s" in results["fp32"].reason
    child = int((tmp_path / "out" / "child.pid").read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(child, 0)
            status = Path(f"/proc/{child}/stat").read_text().split()[2]
            if status == "Z":  # killed, and waiting for init to notice
                raise ProcessLookupError
            time.sleep(0.1)


def test_slow_work_that_tells_of_its_progress_is_no_hang(tiny: TinyNetwork, tmp_path: Path):
    results = emit(tiny, tmp_path, "is_slow", "fp32", limit_s=5)
    assert results["fp32"].status == "emitted"
    assert results["fp32"].seconds > 5


def test_an_exception_is_one_line(tiny: TinyNetwork, tmp_path: Path):
    results = emit(tiny, tmp_path, "raises", "fp32", "int8")
    assert {r.status for r in results.values()} == {"failed"}
    assert results["int8"].reason == "ValueError: no lowering for aten.frobnicate"


def test_a_missing_tool_is_a_skip(tiny: TinyNetwork, tmp_path: Path):
    results = emit(tiny, tmp_path, "lacks_a_tool", "fp32")
    assert results["fp32"] == Emission(
        "skipped", "this host has no apt-get", peak_memory_mb=results["fp32"].peak_memory_mb
    )


def test_running_out_of_memory_is_a_failure(tiny: TinyNetwork, tmp_path: Path):
    results = emit(tiny, tmp_path, "eats_memory", "fp32")
    assert results["fp32"].status == "failed"
    assert "MemoryError" in results["fp32"].reason


def test_a_backend_that_does_not_exist_is_a_failure(tiny: TinyNetwork, tmp_path: Path):
    results = emit(tiny, tmp_path, "nowhere", "fp32", "int8")
    assert {r.status for r in results.values()} == {"failed"}
    assert "No module named 'tests.faulty.nowhere'" in results["fp32"].reason


def test_ending_all_workers_ends_them_and_starts_no_more(tiny: TinyNetwork, tmp_path: Path):
    """What Ctrl-C does: the workers go, and the lanes do not start new ones for the precisions that were left."""
    outcome: list[BaseException] = []

    def lane() -> None:
        try:
            emit(tiny, tmp_path, "hangs", "fp32", "int8")
        except processes.Ended as error:
            outcome.append(error)

    with processes.session():
        thread = threading.Thread(target=lane)
        thread.start()
        while not (tmp_path / "out" / "child.pid").exists():
            time.sleep(0.1)
        processes.end_all()
        thread.join(timeout=20)
    assert len(outcome) == 1


def test_a_runtime_that_cannot_read_its_file_says_so(tiny: TinyNetwork, tmp_path: Path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"not a flatbuffer")
    port = Port("image", (1, 64, 64, 3), "NHWC", "image")
    job = RunJob("litert", broken, (port,), (port,), tiny.check_inputs, tmp_path / "results.npz")
    run = processes.run(job)
    assert run.outputs is None
    assert run.reason
