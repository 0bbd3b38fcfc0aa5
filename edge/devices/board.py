"""What boards over ssh and phones over adb share: one folder there, a bundle for each runtime, and a native runner.

A board needs a POSIX shell and the small tools around it; the bundle brings the rest. All that comes to it lies in one
fresh folder, which ``close`` removes. A bundle is sent once and stays until then, whatever the number of artifacts; an
artifact, its inputs and its outputs go as soon as it has run. Where the connection is gone for good nothing can be
removed any more, but the runner still ends itself at its limit.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge import processes
from edge.devices import Progress, native
from edge.errors import SetupError
from edge.processes import Exit, Run
from edge.records import EmittedFile, RunJob
from edge.runners import artifacts, build

SPARE_BYTES = 4 << 20
"""Room to leave on the board beside what it gets, for what its own system writes meanwhile."""

# One line each, as far as the board lets us read them; the temperature in thousandths of a degree Celsius.
SURVEY = r"""
tell() { [ -r "$2" ] && printf '%s=%s\n' "$1" "$(tr -d '\000' < "$2" 2>/dev/null)"; }
printf 'kernel=%s\n' "$(uname -srm)"
tell model /proc/device-tree/model
tell governor /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor
tell temperature /sys/class/thermal/thermal_zone0/temp
:
"""
# df -P: one line for a file system; the last number before the percentage is what is free, here in KiB.
FREE = re.compile(r"\s(\d+)\s+\d+%\s")


class Failed(Exception):
    """A step that did not work; the reason in one line."""


@dataclass(frozen=True)
class Effort:
    """How often a board repeats, and how long it may take.

    Attributes:
        warmups: untimed inferences before the repeats.
        repeats: timed inferences.
        run_s: seconds for one artifact. The runner ends itself then, even when nobody is connected any more.
        transfer_s: seconds for sending or fetching one file or one bundle.
        answer_s: seconds for any smaller step, and for the runner's last words after ``run_s``.
    """

    warmups: int = 3
    repeats: int = 20
    run_s: float = 900
    transfer_s: float = 600
    answer_s: float = 30


class Remote(ABC):
    """A device at the other end of a connection; see ``ssh.Board`` and ``adb.Phone``.

    Attributes:
        name: address, on the command line and in the manifest.
    """

    def __init__(self, name: str, parent: str, effort: Effort) -> None:
        """Nothing is connected before ``ready``.

        Args:
            name: the address.
            parent: the board's folder, in its shell's words, in which ours is made.
            effort: repeats and limits.
        """
        self.name = name
        self._parent = parent
        self._effort = effort
        self._folder = ""
        self._bundles: set[Path] = set()
        self._turn = threading.Lock()
        self._progress: Progress = lambda line: None

    @abstractmethod
    def _shell(self, script: str) -> list[str]:
        """The command that runs a POSIX shell script on the board, with its stdin, stdout, stderr and status."""

    @abstractmethod
    def _send(self, path: Path, folder: str, desk: Path) -> None:
        """Put a file or a folder, under its own name, into a folder of the board's.

        Raises:
            Failed: it did not get there whole.
        """

    @abstractmethod
    def _fetch(self, file: str, local: Path, desk: Path) -> None:
        """Fetch a file of the board's.

        Raises:
            Failed: it did not get here whole.
        """

    @abstractmethod
    def _is_lost(self, end: Exit, said: Sequence[str]) -> bool:
        """Whether a command's end and its stderr tell of the connection, not of what ran on the board."""

    def samples(self, macs: int) -> int | None:
        """All."""
        return None

    def obstacle(self, file: EmittedFile) -> str:
        """Why no board takes the artifact; empty if one does."""
        return native.obstacle(file)

    def ready(self, progress: Progress) -> None:
        """Connect, see that it is a 64-bit Arm system, and make the folder there, unless that is done.

        Raises:
            SetupError: it cannot be reached, is something else, or has no place for a folder.
        """
        with self._turn:
            self._progress = progress
            if not self._folder:
                self._connect()

    def _connect(self) -> None:
        self._progress(f"{self.name}: connecting")
        with tempfile.TemporaryDirectory() as desk:
            try:
                machine = self._ask("uname -m", Path(desk)).strip()
                if machine != native.MACHINE:
                    raise Failed(f"its machine is {machine[:40]!r}, and the runners are built for {native.MACHINE}")
                folder = self._ask(f'mktemp -d "{self._parent}/edge-XXXXXX"', Path(desk)).strip()
                if "/edge-" not in folder or "\n" in folder:
                    raise Failed(f"asked for a new folder, it answered {folder[:80]!r}")
            except Failed as error:
                raise SetupError(
                    f"{self.name} cannot be used: {error}",
                    stage="setup",
                    next_step=f"try it by hand: {shlex.join(self._shell('uname -m'))}",
                ) from None
        self._folder = folder

    def run(self, job: RunJob) -> Run:
        """Run an artifact there, with nothing else of ours beside it.

        Returns:
            Its outputs, timings and conditions; or the reason why there are none.
        """
        desk = processes.desk(job.results)
        desk.mkdir(parents=True, exist_ok=True)
        with self._turn:
            try:
                return self._run(job, desk)
            except Failed as error:
                return Run(None, str(error))
            finally:
                with contextlib.suppress(Failed, processes.Ended):
                    self._ask(_removal(f"{self._folder}/job"), desk)

    def close(self) -> None:
        """End what still runs and remove the folder, as far as the board can be reached."""
        if not self._folder:
            return
        # Not one of the session's processes: after an interruption no more of those start.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                self._shell(f"{_removal(f'{self._folder}/job')}; {_removal(self._folder)}"),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._effort.answer_s,
                start_new_session=True,
                check=False,
            )
        self._folder = ""
        self._bundles.clear()

    def _run(self, job: RunJob, desk: Path) -> Run:
        effort, place = self._effort, f"{self._folder}/job"
        plan = native.Plan(native.check_samples(job), effort.warmups, effort.repeats, effort.run_s)
        native.write_inputs(job, plan.samples, desk)
        try:
            artifact = artifacts.prepare(job.runtime, job.artifact, desk)
        except ValueError as error:
            raise Failed(str(error)) from None
        bundle = build.bundle(job.runtime, self._progress)
        files = [artifact, *(desk / name for name in native.input_names(job))]

        before = self._ask(f"mkdir {shlex.quote(place)} && df -Pk {shlex.quote(place)} && {{ {SURVEY} }}", desk)
        missing = [] if bundle in self._bundles else [bundle]
        _expect_room(before, sum(map(_size, [*missing, *files])) + native.output_bytes(job, plan))
        for path in missing:
            self._progress(f"{self.name}: sending {path.name}")
            self._send(path, self._folder, desk)
            self._bundles.add(path)
        for path in files:
            self._send(path, place, desk)

        answer = desk / "answer.jsonl"
        line = [*native.START, *native.arguments(job, plan, f"{place}/{artifact.name}", place)]
        script = _start(f"{self._folder}/{bundle.name}", line, f"{place}/pid")
        end, said = self._execute(self._shell(script), desk, effort.run_s + effort.answer_s, output=answer)
        if self._is_lost(end, said):
            raise Failed(f"the connection was lost while it ran: {_essence(said)}")
        after = self._ask(SURVEY, desk)
        if not native.reason(answer.read_bytes(), end):
            for name in native.output_names(job):
                self._fetch(f"{place}/{name}", desk / name, desk)
        run = native.read(job, plan, desk, answer.read_bytes(), end, native.title(job.runtime))
        return replace(run, conditions=_conditions(before, after))

    def _ask(self, script: str, desk: Path) -> str:
        """What a short script prints on the board."""
        answer = desk / "said.txt"
        self._step("asked a question, it failed", self._shell(script), desk, self._effort.answer_s, output=answer)
        return answer.read_text(encoding="utf-8", errors="replace")

    def _step(
        self,
        trouble: str,
        command: list[str],
        desk: Path,
        limit_s: float,
        *,
        output: Path | None = None,
        source: Path | None = None,
    ) -> None:
        """Run a command that must succeed.

        Raises:
            Failed: ``trouble``, and the essence of what was said.
        """
        end, said = self._execute(command, desk, limit_s, output=output, source=source)
        if self._is_lost(end, said):
            raise Failed(f"no connection: {_essence(said)}")
        if end.reason:
            raise Failed(f"{trouble}: {_essence(said) if end.status > 0 and said else end.reason}")

    def _execute(
        self, command: list[str], desk: Path, limit_s: float, *, output: Path | None = None, source: Path | None = None
    ) -> tuple[Exit, list[str]]:
        """Run a command on this side; how it ended, and the lines it wrote on stderr, which go to the job's log."""
        log = desk / "log.txt"
        log.touch()
        begin = log.stat().st_size
        if output:
            output.unlink(missing_ok=True)
        try:
            end = processes.execute(command, _environment(), desk, limit_s, log=log, output=output, source=source)
        except FileNotFoundError:
            raise Failed(f"this host has no {command[0]}") from None
        with log.open("rb") as stream:
            stream.seek(begin)
            text = stream.read().decode("utf-8", errors="replace")
        return end, [line.strip() for line in text.splitlines() if line.strip()]


def _environment() -> dict[str, str]:
    """This host's own, for agents and proxies; messages in English."""
    return {**os.environ, "LC_ALL": "C"}


def _essence(said: Sequence[str]) -> str:
    """The line that says most: a full disk is named in the middle, all else at the end."""
    full = [line for line in said if "No space left" in line]
    return (full or [*said[-1:], "nothing was said"])[0][:200]


def _start(bundle: str, line: Sequence[str], pid_file: str) -> str:
    """A script that starts the runner, writes down its process, and ends with its status."""
    pid = shlex.quote(pid_file)
    return f"cd {shlex.quote(bundle)} && {{ {shlex.join(line)} & echo $! > {pid}; wait $!; s=$?; rm {pid}; exit $s; }}"


def _removal(folder: str) -> str:
    """A script that ends the runner whose process is written down in a folder, if it still runs, and removes both."""
    place = shlex.quote(folder)
    return f"[ ! -f {place}/pid ] || kill -9 $(cat {place}/pid); rm -rf {place}"


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _expect_room(df: str, needed: int) -> None:
    """Compare what ``df -Pk`` says with what is to come."""
    if not (match := FREE.search(df)):
        raise Failed("it does not tell how much of its disk is free")
    free = int(match[1]) * 1024
    if free < needed + SPARE_BYTES:
        raise Failed(f"its disk has {free / 1e6:.1f} MB free, {(needed + SPARE_BYTES) / 1e6:.1f} MB are needed")


def _conditions(before: str, after: str) -> dict[str, str]:
    """What the two surveys tell, in words."""
    first, last = (dict(re.findall(r"^(\w+)=(.+)$", survey, re.MULTILINE)) for survey in (before, after))
    conditions = {key: first[key][:80] for key in ("kernel", "model", "governor") if key in first}
    for when, survey in (("before", first), ("after", last)):
        with contextlib.suppress(KeyError, ValueError):
            conditions[f"temperature {when}"] = f"{int(survey['temperature']) / 1000:.1f} °C"
    return conditions
