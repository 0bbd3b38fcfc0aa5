"""Phones over adb, as far as it goes without a phone.

The commands run against a stand-in for adb, which executes them here on the emulated core: this checks their sequence
and their quoting, and nothing about Android. What the client says where there is no phone is the real client's word.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import Sqnr, TinyNetwork
from edge import targets
from edge.devices import adb
from edge.devices.board import Effort
from edge.errors import SetupError, UsageError
from edge.processes import Exit, Run
from edge.records import RunJob
from edge.toolchains import debian
from rig.board import SHELL, Board, write_executable

EFFORT = Effort(warmups=1, repeats=3, run_s=60, transfer_s=60, answer_s=15)
TARGET = targets.load("cortex-a72")
STAND_IN = Path(__file__).parent / "rig" / "adb.sh"


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A stand-in for a phone; afterwards nothing may be left on it."""
    board = Board(tmp_path / "phone", TARGET)
    client = tmp_path / "client"
    client.mkdir()
    write_executable(client / "adb", f'#!/bin/sh\nRIG={board.folder} BOARD={SHELL} exec sh {STAND_IN} "$@"\n')
    monkeypatch.setenv("PATH", str(client), prepend=":")
    yield board
    assert board.leftovers() == []


@pytest.fixture
def job(tiny_executorch: RunJob, tmp_path: Path) -> RunJob:
    return replace(tiny_executorch, results=tmp_path / "results.npz")


def run(job: RunJob) -> Run:
    device = adb.Phone("emulated-1", EFFORT)
    device.ready(lambda line: None)
    try:
        return device.run(job)
    finally:
        device.close()


@pytest.mark.slow
def test_the_stand_in_runs_an_artifact(phone: Board, job: RunJob, tiny: TinyNetwork, sqnr: Sqnr) -> None:
    result = run(job)
    assert result.outputs is not None, result.reason
    assert sqnr(tiny.oracle["logits"], result.outputs["logits"]) >= TARGET.gates["fp32"].sqnr_db
    assert len(result.repeats) == EFFORT.repeats
    assert result.seconds == np.median(result.repeats)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("core", "reason"),
    [
        ("echo Welcome", "not a runner's: 'Welcome'"),
        ("kill -9 $$", "died with SIGKILL"),
        ('ln -s /dev/full ../job/output_0.f32; exec $EMULATED "$@"', "No space left on device"),
    ],
)
def test_a_runner_that_fails_is_a_reason(phone: Board, job: RunJob, core: str, reason: str) -> None:
    phone.core(core)
    result = run(job)
    assert result.outputs is None
    assert reason in result.reason


@pytest.mark.slow
def test_the_real_client_tells_of_a_missing_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of its own, which is ended afterwards, with its own keys, port and log."""
    debian.ensure("adb", ("adb",))
    client = debian.program("adb", "adb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    settings = {**client.environment, "ANDROID_ADB_SERVER_PORT": port, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(client.path.parent), prepend=":")
    try:
        with pytest.raises(SetupError, match="no connection: error: device 'nobodys' not found"):
            adb.Phone("nobodys").ready(lambda line: None)
    finally:
        client.run("kill-server")


def test_without_a_client_there_is_no_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="this host has no adb"):
        adb.Phone("emulated-1").ready(lambda line: None)


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("error: device offline", True),
        ("error: device unauthorized.", True),
        ("adb: error: failed to get feature set: device 'x' not found", True),
        ("error: closed", True),
        ("adb: error: failed to copy 'a' to 'b': remote write failed: No space left on device", False),
        ("mktemp: Failed to create directory /data/local/tmp/edge-XXXXXX: Permission denied", False),
    ],
)
def test_a_lost_phone_is_told_from_what_ran_on_it(said: str, lost: bool) -> None:
    assert adb.Phone("x")._is_lost(Exit("exited with status 1", 1, 0, 1), [said]) is lost


@pytest.mark.parametrize("serial", ["", "-d", "a b", "x;y"])
def test_what_is_no_serial_is_refused(serial: str) -> None:
    with pytest.raises(UsageError):
        adb.Phone(serial)
