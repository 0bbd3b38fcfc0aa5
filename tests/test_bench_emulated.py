"""The whole bench on a small network, with real converters and runtimes, and the faults it must name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from conftest import TinyNetwork
from edge import targets
from edge.bench import peer_rows
from edge.bench.bench import bench
from edge.bench.counting import Counting
from edge.bench.emulated_python import EmulatedPython
from edge.bench.entrant import Entrant
from edge.bench.peer_rows import Program
from edge.bench.peers import PEERS, WHEELS, locked
from edge.bench.results import Bench, Row
from edge.finished import opened
from edge.parity.vectors import Vectors
from edge.progress import Reporter
from edge.records import EmittedFile, Port, RunJob, Tool
from edge.request import Request

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Benched:
    request: Request
    reporter: Reporter
    bench: Bench


@pytest.fixture(scope="module")
def benched(tiny: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> Benched:
    folder = tmp_path_factory.mktemp("bench")
    target = targets.load("cortex-a72")
    request = Request(str(tiny.program), target, ("tvm",), ("fp32",), out=folder, jobs=1)
    reporter = Reporter(Console(stderr=True))
    return Benched(request, reporter, bench(request, reporter))


@pytest.fixture(scope="module")
def program(benched: Benched) -> Iterator[Program]:
    with opened(benched.request.folder, benched.reporter) as finished:
        yield peer_rows.lowered(benched.request, finished)


@pytest.fixture
def measure(benched: Benched) -> Counting:
    return Counting(benched.request.target)


NAMES = [peer.name for peer in locked(WHEELS)]


@pytest.fixture(scope="module")
def onnx(program: Program) -> tuple[EmittedFile, Path]:
    """The network converted once more for ONNX Runtime: its record, and the file."""
    folder = program.finished.work / "once_more"
    (file,) = peer_rows.convert(PEERS["onnxruntime"], program, folder).files
    return file, folder / file.file


def silent(line: str) -> None:
    pass


def test_every_runtime_runs_the_same_network_correctly_and_is_counted(benched: Benched) -> None:
    rows = {row.format: row for row in benched.bench.rows}
    assert set(rows) == {"tvm", *NAMES}
    for row in rows.values():
        assert (row.status, row.device) == ("passed", "emulated"), row.reason
        assert row.sqnr_db > 100
        assert 0 < row.vector_fma < row.instructions
        assert row.modelled_cycles > row.floor_cycles > 0
        assert row.bytes > 100_000
    floors = {row.floor_cycles for row in rows.values()}
    assert floors == {round(benched.bench.macs / 4)}, "four multiply-adds a cycle"
    assert min(row.ratio for row in rows.values() if row.format != "tvm") == 1


def blank(benched: Benched) -> Row:
    """The row of ONNX Runtime, as it is before anything ran."""
    first = next(row for row in benched.bench.rows if row.format == "onnxruntime")
    return Row(first.runtime, first.format, first.precision, first.device, "", None, "")


def test_the_row_repeats(benched: Benched, program: Program, onnx: tuple[EmittedFile, Path], measure: Counting) -> None:
    """Converted again, and run in another folder; ONNX Runtime's own work differs in the fourth digit now and then."""
    entrant = peer_rows.judge(blank(benched), program.finished, *onnx, measure.device, silent)
    (again,) = measure.rows([entrant], program.finished, benched.reporter)
    first = next(row for row in benched.bench.rows if row.format == "onnxruntime")
    varying = ("instructions", "modelled_cycles", "share_of_floor")
    for figure in varying:
        assert getattr(again, figure) == pytest.approx(getattr(first, figure), rel=1e-3)
    alike = {figure: getattr(first, figure) for figure in ("ratio", *varying)}
    assert replace(again, **alike) == first


def test_a_peer_that_misses_the_gate_is_not_counted(
    benched: Benched,
    program: Program,
    onnx: tuple[EmittedFile, Path],
    measure: Counting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its outputs are held against the network's; here two of the network's are swapped."""
    load = peer_rows.check_vectors.load

    def swapped(folder: Path) -> Vectors:
        vectors = load(folder)
        oracle = {name: values[:, [1, 0, *range(2, values.shape[1])]] for name, values in vectors.oracle.items()}
        return replace(vectors, oracle=oracle)

    monkeypatch.setattr(peer_rows.check_vectors, "load", swapped)
    file, artifact = onnx
    copy = shutil.copy(artifact, tmp_path / artifact.name)
    entrant = peer_rows.judge(blank(benched), program.finished, file, copy, measure.device, silent)
    (row,) = measure.rows([entrant], program.finished, benched.reporter)
    assert row.status == "failed"
    assert "at least 100 expected" in row.reason
    assert row.modelled_cycles is None


def test_a_network_that_a_peer_cannot_convert_is_its_reason(
    program: Program, measure: Counting, tmp_path: Path
) -> None:
    (tmp_path / "broken.pt2").write_bytes(b"not a program")
    broken = replace(program, file=tmp_path / "broken.pt2")
    entrant: Entrant = peer_rows.entrant(PEERS["mnn"], broken, measure, silent)
    assert entrant.row.status == "failed"
    assert entrant.row.reason.startswith("conversion: ")
    assert entrant.row.bytes is None


@pytest.mark.parametrize("peer", NAMES)
def test_a_damaged_artifact_is_a_reason_too(benched: Benched, tmp_path: Path, peer: str) -> None:
    artifact = tmp_path / f"net.{peer}"
    artifact.write_bytes(b"\x07" * 1000)
    ports = (Port("image", (1, 3, 64, 64), "NCHW", "image"),), (Port("logits", (1, 10), "", "logits"),)
    np.savez(tmp_path / "check.npz", image=np.zeros((1, 3, 64, 64), np.float32))
    device = EmulatedPython(benched.request.target)
    run = device.run(RunJob(peer, artifact, *ports, tmp_path / "check.npz", tmp_path / "results.npz"))
    assert run.outputs is None
    assert run.executed is None
    assert run.reason


def test_the_device_takes_peers_artifacts_only() -> None:
    device = EmulatedPython(targets.load("cortex-a72"))
    tool = Tool("any", "1")
    assert not device.obstacle(EmittedFile("net.onnx", "onnxruntime", tool, (), ()))
    assert device.obstacle(EmittedFile("net.pt2", "inductor", tool, (), ())), "torch has no wheel there"
    assert device.obstacle(EmittedFile("net.tflite", "litert", tool, (), ()))
