"""The command as a user types it: what it prints, how fast, and what the shell gets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge import targets
from edge.formats import FORMATS
from edge.toolchains.places import REPOSITORY


def edge(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"}
    command = [sys.executable, "-m", "edge", *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, text=True, capture_output=True, timeout=120, check=False)


def test_help_is_there_at_once():
    def seconds() -> float:
        begin = time.monotonic()
        assert "export" in edge("--help").stdout
        return time.monotonic() - begin

    assert min(seconds() for _ in range(3)) < 0.5


def test_models_gives_the_numbers_of_the_paper():
    rows = {row["name"]: row for row in json.loads(edge("models", "--json").stdout)}
    t1 = rows["fasternet_t1"]
    assert (t1["params"], t1["params_folded"], t1["macs"]) == (7_595_368, 7_587_624, 850_511_872)
    assert t1["input_shape"] == [1, 3, 224, 224]


def test_targets_and_formats_are_the_tables():
    assert [row["name"] for row in json.loads(edge("targets", "--json").stdout)] == list(targets.names())
    assert [row["name"] for row in json.loads(edge("formats", "--json").stdout)] == list(FORMATS)
    for listing in ("targets", "formats", "models"):
        assert max(map(len, edge(listing).stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("export", "fasternet_t11", "--target", "cortex-a72"), 2, "did you mean fasternet_t1"),
        (("export", "fasternet_t1", "--target", "cortex-a7"), 2, "did you mean cortex-a7"),
        (("export", "fasternet_t1", "--target", "cortex-a72", "--formats", "tflight"), 2, "did you mean tflite"),
        (("export", "fasternet_t1", "--target", "cortex-a72", "--checkpoint", "nowhere.pth"), 3, "nowhere.pth"),
        (("export", "nowhere.pt2", "--target", "cortex-a72"), 3, "nowhere.pt2"),
        (("export", "fasternet_t1", "--target", "cortex-a72", "--calibration", "nowhere"), 3, "nowhere"),
        (("export", "fasternet_t1", "--target", "cortex-a72", "--device", "emulator"), 2, "there are host, emulated"),
        (("export", "fasternet_t1", "--target", "pixel-8", "--device", "emulated"), 2, "host, software-gpu"),
        (("verify", "nowhere"), 3, "holds no finished export"),
        (("cost", "nowhere"), 3, "holds no finished export"),
        (("bench", "fasternet_t0", "--target", "pixel-8"), 2, "not emulated"),
    ],
)
def test_a_mistake_is_one_message_with_the_next_step(arguments: tuple[str, ...], code: int, says: str, tmp_path: Path):
    result = edge(*arguments, cwd=tmp_path)
    assert result.returncode == code
    assert says in result.stderr
    assert "next: " in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_missing_option_is_a_usage_error():
    result = edge("export", "fasternet_t1")
    assert result.returncode == 2
    assert "--target" in result.stderr


def test_make_passes_every_variable_on():
    """The Makefile's variables are the command's options."""
    variables = {
        "TARGET": "cortex-a53", "MODEL": "fasternet_t0", "CHECKPOINT": "a b.pth", "CALIBRATION": "my images",
        "FORMATS": "tvm,tflite", "PRECISIONS": "fp32", "OUT": "the output", "JOBS": "1", "TFLITE_CONVERTER": "onnx2tf",
    }  # fmt: skip
    command = ["make", "-n", "export", *(f"{name}={value}" for name, value in variables.items())]
    printed = subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True, check=True).stdout
    line = re.sub(r"\s+", " ", next(line for line in printed.splitlines() if "edge export" in line))
    for option, value in (("", "fasternet_t0"), ("--target", "cortex-a53"), ("--checkpoint", "a b.pth"),
                          ("--calibration", "my images"), ("--formats", "tvm,tflite"), ("--precisions", "fp32"),
                          ("--out", "the output"), ("--jobs", "1"), ("--tflite-converter", "onnx2tf")):  # fmt: skip
        assert f"{option} '{value}'" in line


@pytest.mark.parametrize("command", ["verify", "cost"])
def test_make_finds_what_was_exported(command: str):
    variables = ("TARGET=cortex-a72", "MODEL=my/net.pt2", "OUT=the output", "DEVICES=ssh://me@board")
    printed = subprocess.run(
        ["make", "-n", command, *variables], cwd=REPOSITORY, text=True, capture_output=True, check=True
    )
    assert f"edge {command} 'the output/cortex-a72/net'" in printed.stdout
    assert ("--device 'ssh://me@board'" in printed.stdout) == (command == "verify")


def test_make_help_lists_the_targets():
    printed = subprocess.run(["make", "help"], cwd=REPOSITORY, text=True, capture_output=True, check=True).stdout
    for name in ("export", "verify", "cost", "bench", "test", "lint", "models", "targets", "formats", "clean"):
        assert f"make {name} " in printed
