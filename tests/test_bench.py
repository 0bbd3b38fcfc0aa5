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

from edge.bench import pages, table
from edge.bench.peers import PEERS
from edge.bench.results import Bench, Row, best_peer, compared


def row(runtime: str, cycles: int | None, format: str = "tflite", precision: str = "fp32", **fields: object) -> Row:
    counted = {"instructions": cycles, "vector_fma": cycles, "modelled_cycles": cycles, "floor_cycles": 80_000_000}
    figures = {**counted, "share_of_floor": 80_000_000 / cycles} if cycles else {}
    basis = Row(runtime, format, precision, "emulated", f"net.{runtime}", 1_000_000, "passed", sqnr_db=120.0)
    return replace(basis, **{**figures, **fields})


WRONG = row("wrong", None, "wrong", status="failed", reason="SQNR 62.6 dB, at least 100 expected", sqnr_db=62.6)
OURS = row("ours", 90_000_000, "tvm")
SLOW, FAST = row("slow", 125_000_000, "onnxruntime"), row("fast", 100_000_000)
INT8 = row("small", 40_000_000, precision="int8")


def bench(*rows: Row) -> Bench:
    return Bench(
        target="cortex-a72",
        title="Raspberry Pi 4",
        core="cortex-a72",
        network="net",
        macs=320_000_000,
        weights="seed 0",
        scheduling_model="cortex-a72",
        samples=4,
        command="make bench TARGET=cortex-a72 MODEL=net",
        rows=compared(rows),
        unknown=("The model knows no caches.",),
    )


def test_the_best_peer_is_a_correct_float32_one_that_is_not_ours() -> None:
    assert best_peer([WRONG, OURS, INT8, SLOW, FAST]) == FAST


def test_every_counted_row_is_held_against_the_best_peer() -> None:
    rows = compared([WRONG, SLOW, FAST, OURS, INT8])
    assert [row.runtime for row in rows] == ["small", "ours", "fast", "slow", "wrong"]
    assert [row.ratio for row in rows] == [0.4, 0.9, 1.0, 1.25, None]


def test_without_a_peer_there_is_no_ratio() -> None:
    assert [row.ratio for row in compared([OURS, WRONG, INT8])] == [None, None, None]


def test_the_table_fits_the_terminal_and_says_why_a_row_has_no_figures() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table.table(bench(WRONG, SLOW, FAST, OURS, INT8)))
    text = console.export_text()
    assert "125.0 M" in text
    assert "at least 100 expected" in text
    assert "no time" in text
    assert max(map(len, text.splitlines())) <= 100


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


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_every_peer_has_a_converter_a_runtime_and_a_locked_version(peer: object) -> None:
    root = Path(pages.__file__).parents[1]
    assert (root / "bench" / "converters" / f"{peer.name}.py").is_file()
    assert (root / "runtimes" / f"{peer.name}.py").is_file()
    assert peer.version[0].isdigit()
