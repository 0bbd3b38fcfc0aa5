"""The bench on this host: every runtime on a small network, against the clock, and the faults it must name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from conftest import TinyNetwork
from edge import processor, targets
from edge.bench import peer_rows, timing
from edge.bench.bench import bench
from edge.bench.entrant import Entrant, own
from edge.bench.peer_rows import Program
from edge.bench.peers import ENVIRONMENT, PEERS, locked
from edge.bench.results import Bench, Row
from edge.bench.timing import Timing
from edge.errors import UsageError
from edge.finished import Finished, opened
from edge.progress import Reporter
from edge.request import Request

pytestmark = pytest.mark.slow

FORMATS = ("tvm", "tflite", "executorch")


@dataclass(frozen=True)
class Benched:
    request: Request
    reporter: Reporter
    bench: Bench

    def row(self, format: str) -> Row:
        return next(row for row in self.bench.rows if row.format == format)


@pytest.fixture(scope="module")
def benched(tiny: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> Benched:
    folder = tmp_path_factory.mktemp("bench")
    request = Request(str(tiny.program), targets.load("x86-64"), FORMATS, ("fp32",), out=folder, jobs=2)
    reporter = Reporter(Console(stderr=True))
    return Benched(request, reporter, bench(request, reporter))


@pytest.fixture(scope="module")
def finished(benched: Benched) -> Iterator[Finished]:
    with opened(benched.request.folder, benched.reporter) as finished:
        yield finished


@pytest.fixture(scope="module")
def program(benched: Benched, finished: Finished) -> Program:
    return peer_rows.lowered(benched.request, finished)


@pytest.fixture(scope="module")
def onnx(benched: Benched, program: Program) -> Entrant:
    """ONNX Runtime's, converted once more and checked."""
    return peer_rows.entrant(PEERS["onnxruntime"], program, Timing(benched.request.target), silent)


@pytest.fixture
def ours(finished: Finished) -> Entrant:
    return own(next(entry for entry in finished.artifacts if entry["format"] == "tvm"), finished.folder, "host")


def silent(line: str) -> None:
    pass


def test_every_runtime_runs_the_same_network_correctly_and_is_timed(benched: Benched) -> None:
    assert {row.format for row in benched.bench.rows} == {*FORMATS, *(peer.name for peer in locked(ENVIRONMENT))}
    for row in benched.bench.rows:
        assert (row.status, row.device) == ("passed", "host"), row.reason
        assert row.sqnr_db > 100
        assert 0 < row.quartiles_ms[0] <= row.median_ms <= row.quartiles_ms[1]
        assert row.wall_ms > 0.9 * row.median_ms, "one core cannot compute for longer than the clock runs"
        exact = 2 * benched.bench.macs / row.median_ms / 1e6
        assert row.gflops == pytest.approx(exact, rel=0.02, abs=0.06), "to one decimal"
        assert 0 < row.share_of_floor < 1, "nothing computes faster than a loop of multiply-adds"
        assert row.ratio > 0
    peers = [row for row in benched.bench.rows if row.format != "tvm"]
    best = min(peers, key=lambda row: row.median_ms)
    assert (best.ratio, best.ratio_interval) == (1, None)
    for row in benched.bench.rows:
        assert row is best or row.ratio_interval[0] <= row.ratio <= row.ratio_interval[1]
    assert benched.row("tvm").ratio == pytest.approx(benched.row("tvm").median_ms / best.median_ms, rel=0.3)


def test_what_can_be_held_to_the_targets_instructions_is_held_to_them(benched: Benched) -> None:
    """Our library has AVX2's only; that is seen, and that torch's and the C library's have no wider ones."""
    assert benched.row("tvm").vectors.split("/")[0] == "256"
    assert "512" not in benched.row("inductor").vectors


def test_who_hangs_is_named_and_the_others_are_timed_without_it(
    benched: Benched, finished: Finished, ours: Entrant, onnx: Entrant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading from a pipe that nobody fills never ends."""
    os.mkfifo(tmp_path / "endless.onnx")
    hangs = replace(onnx, artifact=tmp_path / "endless.onnx", row=replace(onnx.row, runtime="endless"))
    monkeypatch.setattr(timing, "LOADING_LIMIT_S", 20)
    rows = Timing(benched.request.target).rows([ours, hangs, onnx], finished, benched.reporter)
    assert [row.status for row in rows] == ["passed", "failed", "passed"]
    assert rows[1].reason == f"timing: {timing.HANGS}"
    assert [row.median_ms is None for row in rows] == [False, True, False]


def test_who_breaks_off_or_computes_something_else_beside_the_others_has_no_time(
    benched: Benched, finished: Finished, ours: Entrant, onnx: Entrant, tmp_path: Path
) -> None:
    """A library that was cut short since its check, and a network with other weights."""
    (tmp_path / "cut.so").write_bytes(ours.artifact.read_bytes()[:5000])
    cut = replace(ours, artifact=tmp_path / "cut.so")
    content = bytearray(onnx.artifact.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    (tmp_path / "other.onnx").write_bytes(content)
    other = replace(onnx, artifact=tmp_path / "other.onnx")
    rows = Timing(benched.request.target).rows([cut, other, onnx], finished, benched.reporter)
    assert [row.status for row in rows] == ["failed", "failed", "passed"]
    assert "truncated" in rows[0].reason
    assert rows[1].reason.startswith("timing: beside the others SQNR")
    assert rows[2].ratio == 1


def test_a_network_that_a_peer_cannot_convert_is_its_reason(benched: Benched, program: Program, tmp_path: Path) -> None:
    (tmp_path / "broken.pt2").write_bytes(b"not a program")
    broken = replace(program, file=tmp_path / "broken.pt2")
    row = peer_rows.entrant(PEERS["openvino"], broken, Timing(benched.request.target), silent).row
    assert row.status == "failed"
    assert row.reason.startswith("conversion: ")


def test_a_host_that_lacks_the_targets_instructions_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = processor.cpuinfo()["flags"].replace("avx2", "")
    monkeypatch.setattr(processor, "cpuinfo", lambda: {"flags": flags, "model name": "", "model": ""})
    request = Request("fasternet_t0", targets.load("x86-64"))
    with pytest.raises(UsageError, match="this host lacks avx2"):
        Timing(request.target).export(request, Reporter(Console(stderr=True)))
