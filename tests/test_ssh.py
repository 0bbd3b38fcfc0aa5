"""Boards over ssh: a real sshd on loopback whose board is the emulated core, and every way such a board can fail.

Whatever happens, nothing may be left on the board: no file, no process.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import Sqnr, TinyNetwork
from edge import processes, targets
from edge.devices import board as boards
from edge.devices import ssh
from edge.devices.board import Effort
from edge.errors import SetupError, UsageError
from edge.parity.gates import judge
from edge.parity.metrics import measure
from edge.processes import Run
from edge.records import RunJob
from rig.loopback import Loopback, loopback

EFFORT = Effort(warmups=1, repeats=3, run_s=60, transfer_s=60, answer_s=15)
TARGET = targets.load("cortex-a72")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with loopback(tmp_path_factory.mktemp("rig") / "board", TARGET) as made:
        yield made


@pytest.fixture
def device(rig: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """The rig without faults, its client first on PATH; afterwards nothing may be left on it."""
    rig.board.mend()
    rig.use_key("board")
    monkeypatch.setenv("PATH", str(rig.client), prepend=":")
    yield rig
    assert rig.board.leftovers() == []


@pytest.fixture
def job(tiny_executorch: RunJob, tmp_path: Path) -> RunJob:
    return replace(tiny_executorch, results=tmp_path / "results.npz")


def run(device: Loopback, job: RunJob, effort: Effort = EFFORT) -> Run:
    board = ssh.Board(device.address, effort)
    board.ready(lambda line: None)
    try:
        return board.run(job)
    finally:
        board.close()


def reason_of(device: Loopback, job: RunJob, effort: Effort = EFFORT, within_s: float = 20) -> str:
    """Why a run failed, which it must, and soon."""
    begin = time.monotonic()
    result = run(device, job, effort)
    assert time.monotonic() - begin < within_s
    assert result.outputs is None
    return result.reason


@pytest.mark.slow
def test_a_board_runs_artifacts_and_keeps_nothing(
    device: Loopback, job: RunJob, tiny: TinyNetwork, sqnr: Sqnr, tmp_path: Path
) -> None:
    lines: list[str] = []
    board = ssh.Board(device.address, EFFORT)
    assert board.samples(10**12) is None
    board.ready(lines.append)
    first = board.run(job)
    between = device.board.leftovers()
    second = board.run(replace(job, results=tmp_path / "again.npz"))
    board.close()

    assert first.reason == second.reason == ""
    assert first.outputs is not None
    assert second.outputs is not None
    assert first.outputs["logits"].shape == tiny.oracle["logits"].shape
    assert sqnr(tiny.oracle["logits"], first.outputs["logits"]) >= TARGET.gates["fp32"].sqnr_db
    assert np.array_equal(first.outputs["logits"], second.outputs["logits"])
    assert len(first.repeats) == EFFORT.repeats
    assert first.seconds == np.median(first.repeats)
    assert first.runtime.startswith("ExecuTorch 1.")
    assert first.peak_memory_mb > 0
    assert first.conditions["kernel"] == "Linux 6.1.0-rig aarch64"
    assert first.libraries[0].path.endswith("/run")
    # The bundle stays for the next artifact, and is not sent again; the artifact does not.
    assert sum("sending" in line for line in lines) == 1
    assert any(path.endswith("/run") for path in between)
    assert not any(path.endswith(job.artifact.suffix) for path in between)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("core", "reason"),
    [
        ("echo Welcome", "not a runner's: 'Welcome'"),
        ("exit 0", "ended without an answer"),
        ("exit 42", "exited with status 42"),
        ("kill -9 $$", "died with SIGKILL"),
        ('$EMULATED "$@" && truncate -s 100 ../job/output_0.f32', "100 bytes of logits came back, 160 expected"),
        ('$EMULATED "$@" && rm ../job/output_0.f32', "output_0.f32 could not be fetched: cat: "),
        ('ln -s /dev/full ../job/output_0.f32; exec $EMULATED "$@"', "No space left on device"),
        ('exec $EMULATED "$1" "$2" "$3" "$4" ../job/nothing "$@"', "usage: run ARTIFACT"),
    ],
    ids=["text", "silence", "status", "killed", "truncated", "removed", "full disk", "other arguments"],
)
def test_a_runner_that_fails_is_a_reason(device: Loopback, job: RunJob, core: str, reason: str) -> None:
    device.board.core(core)
    assert reason in reason_of(device, job)


@pytest.mark.slow
def test_two_swapped_channels_do_not_pass_the_gate(device: Loopback, job: RunJob, tiny: TinyNetwork) -> None:
    swap = (
        "import numpy as np; f = '../job/output_0.f32'; y = np.fromfile(f, '<f4').reshape(-1, 10); "
        "y[:, [3, 4]] = y[:, [4, 3]]; y.tofile(f)"
    )
    misses = []
    for core in ('exec $EMULATED "$@"', f'$EMULATED "$@" && {sys.executable} -c "{swap}"'):
        device.board.core(core)
        outputs = run(device, job).outputs
        assert outputs is not None
        measured = measure(tiny.oracle, tiny.oracle, outputs, 0.0)
        misses.append(judge(measured, None, {}, TARGET.gates["fp32"].model_copy(update={"rms_vs_eager": None})))
    assert misses[0] == ""
    assert "SQNR" in misses[1]


@pytest.mark.slow
def test_a_runner_that_hangs_is_ended_here_and_there(device: Loopback, job: RunJob) -> None:
    device.board.core("exec sleep 60")
    assert "limit of 3 s" in reason_of(device, job, replace(EFFORT, run_s=1, answer_s=2))


@pytest.mark.slow
def test_a_runner_ends_itself_at_its_limit(device: Loopback, job: RunJob) -> None:
    """Its own alarm, which works when the connection no longer does."""
    assert reason_of(device, job, replace(EFFORT, repeats=10**6, run_s=2)) == "passed its limit of 2 s"


@pytest.mark.slow
def test_a_lost_connection_is_told_from_a_dead_runner(device: Loopback, job: RunJob) -> None:
    device.board.core("kill -9 $(ps -o ppid= -p $PPID); exec sleep 60")
    assert "connection was lost while it ran" in reason_of(device, job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "script", "reason"),
    [
        ("df", "echo /dev/root 100 90 10 90% /", "its disk has 0.0 MB free"),
        ("df", "echo unknown", "does not tell how much"),
        ("tar", "exec cat > /dev/full", "could not be written there: cat: write error: No space left on device"),
    ],
)
def test_a_full_disk_is_a_reason(device: Loopback, job: RunJob, program: str, script: str, reason: str) -> None:
    device.board.program(program, f"#!/bin/sh\n{script}\n")
    assert reason in reason_of(device, job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("exec sleep 20", "limit of 2 s"),
        ("echo Welcome", "its machine is 'Welcome"),
        ("exit 7", "exited with status 7"),
        ("kill -9 $PPID", "no connection"),
    ],
    ids=["hangs", "greets", "refuses", "dies"],
)
def test_a_board_that_cannot_be_used_is_a_set_up_error(device: Loopback, fault: str, reason: str) -> None:
    device.board.fault(fault)
    with pytest.raises(SetupError, match=reason):
        ssh.Board(device.address, replace(EFFORT, answer_s=2)).ready(lambda line: None)


@pytest.mark.slow
def test_another_machine_gets_nothing(device: Loopback) -> None:
    device.board.program("uname", "#!/bin/sh\necho armv7l\n")
    with pytest.raises(SetupError, match="its machine is 'armv7l', and the runners are built for aarch64"):
        ssh.Board(device.address, EFFORT).ready(lambda line: None)


@pytest.mark.slow
def test_a_refused_key_and_an_unknown_host_are_set_up_errors(device: Loopback) -> None:
    with pytest.raises(SetupError, match=r"Could not resolve hostname nowhere\.invalid"):
        ssh.Board("ssh://board@nowhere.invalid", EFFORT).ready(lambda line: None)
    with pytest.raises(SetupError, match="Connection refused"):
        ssh.Board("ssh://board@127.0.0.1:1", EFFORT).ready(lambda line: None)
    device.use_key("stranger")
    with pytest.raises(SetupError, match="Permission denied") as refused:
        ssh.Board(device.address, EFFORT).ready(lambda line: None)
    assert refused.value.next_step.startswith("try it by hand: ssh ")


@pytest.mark.slow
def test_an_interruption_ends_what_runs_and_removes_what_was_sent(device: Loopback, job: RunJob) -> None:
    device.board.core("exec sleep 60")
    board = ssh.Board(device.address, EFFORT)
    board.ready(lambda line: None)
    begin = time.monotonic()
    with processes.session(), pytest.raises(processes.Ended):
        threading.Timer(4, processes.end_all).start()
        board.run(job)
    assert device.board.leftovers()
    board.close()
    assert time.monotonic() - begin < 20


def test_a_board_is_surveyed_as_far_as_it_lets_itself_be() -> None:
    before = "Filesystem 1024-blocks Used Available Capacity Mounted on\nkernel=Linux 6.6 aarch64\ntemperature=45230\n"
    after = "kernel=Linux 6.6 aarch64\nmodel=Raspberry Pi 4 Model B Rev 1.4\ngovernor=\ntemperature=61000\n"
    assert boards._conditions(before, after) == {
        "kernel": "Linux 6.6 aarch64",
        "temperature before": "45.2 °C",
        "temperature after": "61.0 °C",
    }
    assert boards._conditions("kernel=Linux\ntemperature=hot", "") == {"kernel": "Linux"}


@pytest.mark.parametrize("address", ["ssh://", "ssh://a b", "ssh://-oProxyCommand=x/y", "ssh://u@h:port", "board"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        ssh.Board(address)


def test_addresses_are_those_of_ssh_itself() -> None:
    for address in ("ssh://pi@raspberrypi", "ssh://board", "ssh://pi@10.0.0.2:2222", "ssh://pi@[fe80::1]:22"):
        assert ssh.Board(address).name == address
