"""The bench compares like with like: who counts as a peer, what is left out, and what the files say."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from edge.bench import pages, statistics, table
from edge.bench.entrant import unmade
from edge.bench.instructions import width
from edge.bench.peers import ENVIRONMENT, PEERS, WHEELS, locked
from edge.bench.results import Bench, Row, best_peer, ordered, rated
from edge.toolchains.environments import lock_file

CYCLES, TIME = "modelled_cycles", "median_ms"


def row(runtime: str, cycles: int | None, format: str = "tflite", precision: str = "fp32", **fields: object) -> Row:
    counted = {"instructions": cycles, "vector_fma": cycles, "modelled_cycles": cycles, "floor_cycles": 80_000_000}
    figures = {**counted, "share_of_floor": 80_000_000 / cycles} if cycles else {}
    basis = Row(runtime, format, precision, "emulated", f"net.{runtime}", 1_000_000, "passed", sqnr_db=120.0)
    return replace(basis, **{**figures, **fields})


WRONG = row("wrong", None, "wrong", status="failed", reason="SQNR 62.6 dB, at least 100 expected", sqnr_db=62.6)
OURS = row("ours", 90_000_000, "tvm")
SLOW, FAST = row("slow", 125_000_000, "onnxruntime"), row("fast", 100_000_000)
INT8 = row("small", 40_000_000, precision="int8")


def compared(*rows: Row) -> tuple[Row, ...]:
    return ordered(rated(rows, CYCLES), CYCLES)


def bench(*rows: Row) -> Bench:
    return Bench(
        target="cortex-a72",
        title="Raspberry Pi 4",
        by=CYCLES,
        core="an emulated cortex-a72",
        network="net",
        macs=320_000_000,
        weights="seed 0",
        samples=4,
        command="make bench TARGET=cortex-a72 MODEL=net",
        rows=compared(*rows),
        method=("The model knows no caches.",),
    )


def test_the_best_peer_is_a_correct_float32_one_that_is_not_ours() -> None:
    assert best_peer([WRONG, OURS, INT8, SLOW, FAST], CYCLES) == FAST


def test_every_measured_row_is_held_against_the_best_peer() -> None:
    rows = compared(WRONG, SLOW, FAST, OURS, INT8)
    assert [row.runtime for row in rows] == ["small", "ours", "fast", "slow", "wrong"]
    assert [row.ratio for row in rows] == [0.4, 0.9, 1.0, 1.25, None]


def test_without_a_peer_there_is_no_ratio() -> None:
    assert [row.ratio for row in compared(OURS, WRONG, INT8)] == [None, None, None]


def test_the_table_fits_the_terminal_and_says_why_a_row_has_no_figures() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table.table(bench(WRONG, SLOW, FAST, OURS, INT8)))
    text = console.export_text()
    assert "125.0 M" in text
    assert "at least 100 expected" in text
    assert "no time" in text
    assert max(map(len, text.splitlines())) <= 100


def test_what_the_export_could_not_make_is_a_row_with_the_reason() -> None:
    check = {"device": "host", "status": "skipped", "reason": "the linker cannot be had"}
    entrant = unmade({"file": None, "format": "tvm", "precision": "fp32", "checks": [check]}, "emulated")
    assert not entrant.has_passed
    console = Console(file=io.StringIO(), width=100)
    console.print(table.table(bench(entrant.row, FAST)))
    assert "skipped  TVM fp32: the linker cannot be had" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_files_are_whole_and_agree(tmp_path: Path) -> None:
    page = pages.save(bench(WRONG, SLOW, FAST, OURS, INT8), tmp_path)
    assert sorted(path.name for path in page.parent.iterdir()) == ["bench.json", "bench.md", "bench.png"]
    data = json.loads((tmp_path / "bench/bench.json").read_text())
    assert [row["ratio"] for row in data["rows"]] == [0.4, 0.9, 1.0, 1.25, None]
    text = page.read_text()
    for words in ("bench.png", "emulated", "make bench TARGET=cortex-a72 MODEL=net", "knows no caches", "62.6 dB"):
        assert words in text
    with Image.open(tmp_path / "bench/bench.png") as image:
        blues = (np.asarray(image.convert("RGB")) == (0x0B, 0x62, 0xB0)).all(-1).sum(1)
    starts = [index for index in range(1, len(blues)) if blues[index] > 200 and blues[index - 1] <= 200]
    lengths = [blues[index + 10] for index in starts]
    assert np.allclose(np.divide(lengths, lengths[0]), [1, 100 / 90, 125 / 90], rtol=0.01), "float32, the best first"


def test_the_same_bench_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pages.save(bench(SLOW, FAST), tmp_path / name)
    for suffix in ("png", "json", "md"):
        assert (tmp_path / f"a/bench/bench.{suffix}").read_bytes() == (
            tmp_path / f"b/bench/bench.{suffix}"
        ).read_bytes()


def timed(runtime: str, median: float, interval: tuple[float, float] | None = None, **fields: object) -> Row:
    speed = {"gflops": 640 / median, "share_of_floor": 3 / median}
    basis = row(runtime, None, quartiles_ms=(0.95 * median, 1.1 * median), wall_ms=1.2 * median, **speed)
    return replace(basis, median_ms=median, ratio_interval=interval, vectors="512/256", **fields)


def timed_bench(*rows: Row) -> Bench:
    return replace(bench(), by=TIME, core="this host's EPYC", rows=ordered(rated(rows, TIME), TIME))


def test_times_are_compared_as_cycles_are_and_their_spread_is_shown(tmp_path: Path) -> None:
    """A difference that the spread hides is marked wherever it is written."""
    ours, near = timed("ours", 3.4, (0.83, 0.87), format="tvm"), timed("near", 4.1, (0.98, 1.07))
    found = timed_bench(near, timed("best", 4.0), ours, timed("quite other runtime 1.31.1", 123.4, (30.2, 31.3)))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table.table(found))
    text = console.export_text()
    lines = [line.split() for line in text.splitlines()]
    figures = ["512/256", "3.40", "3.23–3.74", "4.08", "188", "88%", "0.85", "0.83–0.87"]
    assert ["ours", "fp32", "120.0", "dB", *figures] in lines
    assert any(line[:1] == ["near"] and line[-3:] == ["≈", "1.02", "0.98–1.07"] for line in lines)
    assert "the spread hides" in text
    assert max(map(len, text.splitlines())) <= 100
    page = pages.write(found, tmp_path, pages.docs_name(found)).read_text()
    assert "| near | fp32 | 120.0 dB | 512/256 | 4.10 | 3.89–4.51 | 4.92 | 156 | 73% | ≈ 1.02 | 0.98–1.07 |" in page


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    for count in (11, 25, 51):
        draws = generator.exponential(size=(2000, count))
        held = [low <= np.log(2) <= high for low, high in map(statistics.median_interval, draws)]
        assert 0.95 - 3 * np.sqrt(0.05 * 0.95 / 2000) <= np.mean(held) <= 0.995
    assert statistics.median_interval(range(1, 26)) == (8, 18), "the textbook's"
    assert statistics.median_interval([1.0] * 5) == (-np.inf, np.inf), "five say nothing with 95 %"


def test_what_slows_the_machine_leaves_the_ratio_alone() -> None:
    generator = np.random.default_rng(1)
    weather = generator.uniform(1, 3, size=51)
    ours, theirs = 3.6 * weather * generator.normal(1, 0.01, 51), 4.0 * weather * generator.normal(1, 0.01, 51)
    middle, (low, high) = statistics.ratio(ours.tolist(), theirs.tolist())
    assert 0.89 < low <= middle <= high < 0.91
    shuffled = statistics.ratio(ours.tolist(), generator.permutation(theirs).tolist())
    assert shuffled[1][1] - shuffled[1][0] > 10 * (high - low), "it is the pairing that does it"


@pytest.mark.parametrize(
    ("code", "bits"),
    [
        ("62f27548b8c2", 512),  # vfmadd231ps zmm0, zmm1, zmm2
        ("62f27558b800", 512),  # vfmadd231ps zmm0, zmm1, dword [rax]{1to16}
        ("62f27578b8c2", 512),  # vfmadd231ps zmm0, zmm1, zmm2, {rz-sae}
        ("62e27528b8c2", 256),  # vfmadd231ps ymm16, ymm1, ymm2
        ("c4e275b8c2", 256),  # vfmadd231ps ymm0, ymm1, ymm2
        ("c4e271b8c2", 128),  # vfmadd231ps xmm0, xmm1, xmm2
        ("c5fc1000", 256),  # vmovups ymm0, [rax]
        ("c5f85800", 128),  # vaddps xmm0, xmm0, [rax]
        ("488b0000", 0),  # mov rax, [rax]
        ("0f580000", 0),  # addps xmm0, [rax]
    ],
)
def test_the_prefix_tells_the_width(code: str, bits: int) -> None:
    assert width(bytes.fromhex(code)) == bits


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_every_peer_has_a_converter_a_runtime_and_a_locked_version(peer: object) -> None:
    root = Path(pages.__file__).parents[1]
    assert (root / "bench" / "converters" / f"{peer.name}.py").is_file()
    assert (root / "runtimes" / f"{peer.name}.py").is_file()
    assert peer in locked(ENVIRONMENT)
    assert peer.version(ENVIRONMENT)[0].isdigit()


def test_a_runtime_is_the_same_version_wherever_it_is_measured() -> None:
    """The export's environment, the one of the bench, and the emulated core's wheels."""

    def versions(lock: str) -> dict[str, str]:
        lines = lock_file(lock).read_text().splitlines()
        return dict(line.split()[0].split("==") for line in lines if "==" in line)

    base, ours = versions("base"), versions(ENVIRONMENT)
    for name in ("torch", "apache-tvm", "apache-tvm-ffi", "ai-edge-litert", "executorch", "numpy"):
        assert base[name] == ours[name]
    assert {peer.name for peer in locked(WHEELS)} == {"onnxruntime", "ncnn", "mnn"}
    assert all(peer.version(WHEELS) == peer.version(ENVIRONMENT) for peer in locked(WHEELS))
