"""Native runners: what they are asked, and how their answer is read and judged.

A native runner is a small program for the target's core, one for each runtime, which needs no Python where it runs. All
share one command line and one protocol (``edge/runners/runner.h``), so this is the same for the emulated core, a board
and a phone: raw float32 files in, raw float32 files and one JSON object a line out. What a device answers is not
trusted: whatever is no such answer becomes the run's reason.
"""

from __future__ import annotations

import json
import math
import platform
import re
import signal
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge import layouts
from edge.cost.instructions import decode
from edge.processes import Exit, Library, Run
from edge.records import EmittedFile, Port, RunJob
from edge.runners import build
from edge.toolchains.environments import lock_file

START = ("lib/ld-linux-aarch64.so.1", "--library-path", "lib", "./run")
"""Starts a runner in its bundle's folder, with the bundle's own loader and C library."""

RUNTIMES = {
    "tvm": ("TVM", "apache-tvm"),
    "executorch": ("ExecuTorch", "executorch"),
    "executorch_bundled": ("ExecuTorch", "executorch"),
    "litert": ("LiteRT", "ai-edge-litert"),
}
"""Those with a native runner: title, and the wheel that their libraries come from."""

COMPILED = ("tvm",)
"""Runtimes whose artifacts are machine code; the others' run on any core."""

MACHINE = "aarch64"
RAW = np.dtype("<f4")


@dataclass(frozen=True)
class Plan:
    """How often an artifact runs.

    Attributes:
        samples: how many of the check samples, counted from the first; each runs once.
        warmups: untimed inferences of the last sample after them.
        repeats: timed inferences of it after those.
        limit_s: seconds after which the runner ends itself.
    """

    samples: int
    warmups: int = 0
    repeats: int = 0
    limit_s: float = 900


class Garbage(ValueError):
    """An answer that no runner of ours gives."""


def obstacle(file: EmittedFile) -> str:
    """Why no native runner takes an artifact; empty if one does."""
    if file.runtime not in RUNTIMES:
        return f"no native runner for {file.runtime}"
    if file.runtime in COMPILED and file.runs_on == "host" and platform.machine() != MACHINE:
        return f"compiled for this host, which is {platform.machine()}"
    odd = [f"{port.name} is {port.dtype}" for port in (*file.inputs, *file.outputs) if port.dtype != "float32"]
    return f"native runners read and write float32; {', '.join(odd)}" if odd else ""


def title(runtime: str) -> str:
    """What a native runner runs with, and its version, which is locked."""
    name, wheel = RUNTIMES[runtime]
    lock = lock_file(build.WHEELS).read_text(encoding="utf-8")
    version = re.search(rf"^{re.escape(wheel)}==(\S+)", lock, re.MULTILINE)
    assert version, f"{wheel} is locked"
    return f"{name} {version[1]}"


def input_names(job: RunJob) -> list[str]:
    """Names of the input files, in the order of the ports."""
    return [f"input_{index}.f32" for index in range(len(job.inputs))]


def output_names(job: RunJob) -> list[str]:
    """Names of the output files, in the order of the ports."""
    return [f"output_{index}.f32" for index in range(len(job.outputs))]


def output_bytes(job: RunJob, plan: Plan) -> int:
    """Size of all output files."""
    return sum(_output_bytes(port, plan.samples) for port in job.outputs)


def check_samples(job: RunJob) -> int:
    """How many check samples the job has."""
    with np.load(job.check_inputs) as arrays:
        return len(arrays[arrays.files[0]])


def write_inputs(job: RunJob, samples: int, folder: Path) -> None:
    """Write the first check samples as ``input_names`` in a folder: float32, C order, each port in its own layout."""
    with np.load(job.check_inputs) as arrays:
        for name, port in zip(input_names(job), job.inputs, strict=True):
            layouts.to_artifact(arrays[port.name][:samples], port).astype(RAW, copy=False).tofile(folder / name)


def arguments(job: RunJob, plan: Plan, artifact: str, folder: str) -> list[str]:
    """The runner's arguments.

    Args:
        job: what runs.
        plan: how often.
        artifact: the artifact's path on the device, with a slash in it: a library is not sought, but opened.
        folder: the device's folder with the input files; the output files are written beside them.
    """
    numbers = {
        "--threads": job.threads,
        "--samples": plan.samples,
        "--warmups": plan.warmups,
        "--repeats": plan.repeats,
        "--limit": math.ceil(plan.limit_s),
    }
    line = [artifact, *(str(part) for pair in numbers.items() for part in pair)]
    for name, port in zip(input_names(job), job.inputs, strict=True):
        line += ["--input", f"{port.tensor}={folder}/{name}:{'x'.join(map(str, port.shape))}"]
    for name, port in zip(output_names(job), job.outputs, strict=True):
        line += ["--output", f"{port.tensor}={folder}/{name}"]
    return line


def reason(answer: bytes, end: Exit) -> str:
    """Why there are no outputs, as far as a runner's answer and its end tell; empty if they are there to be read."""
    events, garbage = _events(answer)
    found = {event["event"]: event for event in events}
    return _told(found) or _ended(end) or garbage or ("" if "ran" in found else "ended without an answer")


def read(job: RunJob, plan: Plan, folder: Path, answer: bytes, end: Exit, runtime: str) -> Run:
    """Read and judge what a runner answered.

    Args:
        job: what ran.
        plan: how often.
        folder: the folder here with the output files, as far as the device gave them.
        answer: what the runner wrote on stdout.
        end: how it ended; status 128 + n means signal n, as shells have it.
        runtime: what ran it, with its version.

    Returns:
        Its outputs (N, ...) float32, feature maps NCHW, or the reason why there are none.
    """
    if why := reason(answer, end):
        return Run(None, why, runtime)
    found = {event["event"]: event for event in _events(answer)[0]}
    memory = 0
    try:
        ran = found["ran"]
        samples = _seconds(ran, "seconds", plan.samples)
        repeats = _seconds(ran, "repeats", plan.repeats)
        memory = int(ran["peak_memory_kib"]) // 1024
        _compare_shapes(ran.get("outputs"), job.outputs)
        outputs = {
            port.name: _read_output(folder / name, port, plan.samples)
            for name, port in zip(output_names(job), job.outputs, strict=True)
        }
        libraries = tuple(Library(entry["path"], entry["base"]) for entry in found["loaded"]["libraries"])
    except Garbage as error:
        return Run(None, str(error), runtime, None, memory)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return Run(None, f"its answer is not a runner's: {type(error).__name__}: {error}", runtime, None, memory)
    seconds = statistics.median(repeats or samples)
    return Run(outputs, "", runtime, seconds, memory, repeats=repeats, libraries=libraries)


def _events(answer: bytes) -> tuple[list[dict[str, Any]], str]:
    """The events, and the first line that is none, as a reason."""
    events, garbage = [], ""
    for line in answer.splitlines():
        try:
            event = json.loads(line)
            if not isinstance(event["event"], str):
                raise TypeError
        except (ValueError, TypeError, KeyError):
            garbage = garbage or f"its answer is not a runner's: {_plain(line.decode(errors='replace'), 80)!r}"
        else:
            events.append(event)
    return events, garbage


def _plain(text: object, length: int) -> str:
    """Text of unknown origin, fit for a table."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return shown[:length] + ("…" if len(shown) > length else "")


def _told(found: dict[str, dict[str, Any]]) -> str:
    """The reason that the runner itself gives."""
    if "failed" in found:
        return _plain(found["failed"].get("reason", "failed without a reason"), 300)
    return _illegal(found["illegal"]) if "illegal" in found else ""


def _illegal(event: dict[str, Any]) -> str:
    """Which instruction the core refused, and where."""
    try:
        word = int(event["word"], 16)
        instruction = decode([word])[word].text
        function = _plain(event["symbol"] or "an unnamed function", 120)
        place = f"{function}, offset {event['offset']:#x} of {_plain(Path(event['library']).name, 120)}"
    except (KeyError, TypeError, ValueError, OverflowError):
        return "executes an instruction that this core lacks; its answer does not tell which"
    return f"executes {instruction} ({word:08x}) in {place}, which this core lacks"


def _ended(end: Exit) -> str:
    """The reason that its exit gives."""
    if end.status > 128:
        try:
            return f"died with {signal.Signals(end.status - 128).name}"
        except ValueError:
            pass
    return end.reason


def _seconds(ran: dict[str, Any], key: str, count: int) -> tuple[float, ...]:
    values = tuple(float(value) for value in ran[key])
    if len(values) != count or not all(math.isfinite(value) and value >= 0 for value in values):
        raise Garbage(f"its answer has {len(values)} {key}, {count} expected, each a finite number")
    return values


def _compare_shapes(shapes: Any, ports: Iterable[Port]) -> None:
    expected = [list(port.shape) for port in ports]
    if shapes != expected:
        raise Garbage(f"its outputs are {shapes}, the artifact's {expected}")


def _output_bytes(port: Port, samples: int) -> int:
    return samples * math.prod(port.shape) * RAW.itemsize


def _read_output(file: Path, port: Port, samples: int) -> np.ndarray:
    """Outputs (N, ...) from a file of N raw outputs."""
    expected = _output_bytes(port, samples)
    size = file.stat().st_size if file.is_file() else 0
    if size != expected:
        raise Garbage(f"{size} bytes of {port.name} came back, {expected} expected")
    values = np.fromfile(file, RAW).astype(np.float32, copy=False)
    return layouts.from_artifact(values.reshape(samples * port.shape[0], *port.shape[1:]), port)
