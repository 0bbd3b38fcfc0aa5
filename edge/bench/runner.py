"""A runner for runtimes that come as Python wheels: ``python -m edge.bench.runner RUNTIME ARTIFACT …``.

Runs where the runtime runs, in the target's own CPython, and speaks the native runners' protocol
(``edge/runners/runner.h``), so that the same code asks it and judges its answer. The markers surround one inference as
the application calls it: a handful of Python instructions and the copies in and out are counted with it.

Only the standard library, numpy and the runtime are there.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from edge.records import Port

HINT_112, HINT_113, RETURN = 0xD5032E1F, 0xD5032E3F, 0xD65F03C0
RAW = np.dtype("<f4")


class Markers:
    """The marker instructions (``edge/runners/regions.h``) as functions, in a page of code of our own."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(struct.pack("<4I", HINT_112, RETURN, HINT_113, RETURN))
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        function = ctypes.CFUNCTYPE(None)
        self.begin, self.end = function(address), function(address + 8)


def libraries() -> list[dict[str, Any]]:
    """The files mapped into this process that have code in it, and where each begins."""
    begins: dict[str, int] = {}
    with_code: list[str] = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, rights, offset, _, _, *path = line.split(maxsplit=5)
        if not path or not path[0].startswith("/"):
            continue
        if int(offset, 16) == 0:
            begins.setdefault(path[0], int(span.partition("-")[0], 16))
        if "x" in rights:
            with_code.append(path[0])
    return [{"path": path, "base": begins[path]} for path in dict.fromkeys(with_code) if path in begins]


@contextlib.contextmanager
def protocol_only_stdout() -> Iterator[TextIO]:
    """The real stdout as a stream of events; what the runtimes print goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as events:
        os.dup2(2, 1)
        yield events


def run(options: argparse.Namespace, events: TextIO) -> None:
    """Load the artifact, run every sample and then the last one again, and write the outputs."""

    def report(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")

    runtime = importlib.import_module(f"edge.runtimes.{options.runtime}")
    inputs, files = _inputs(options.input, options.samples)
    outputs = tuple(Port(name, (), "", name) for name, _ in options.output)
    infer = runtime.load(options.artifact, inputs, outputs, options.threads)
    markers = Markers()
    inferences = options.samples + options.warmups + options.repeats
    seconds: list[float] = []
    shapes: list[list[int]] = []
    with contextlib.ExitStack() as stack:
        written = [stack.enter_context(path.open("wb")) for _, path in options.output]
        for index in range(inferences):
            sample = min(index, options.samples - 1)
            feed = {port.name: values[sample] for port, values in zip(inputs, files, strict=True)}
            marked = index == inferences - 1
            start = time.perf_counter()
            if marked:
                markers.begin()
            results = infer(feed)
            if marked:
                markers.end()
            seconds.append(time.perf_counter() - start)
            arrays = [np.asarray(results[port.name], RAW) for port in outputs]
            shapes = [list(array.shape) for array in arrays]
            if index < options.samples:
                for file, array in zip(written, arrays, strict=True):
                    file.write(array.tobytes())
    # Only now: the names depend on the host, and would shift the heap that is counted.
    report(event="loaded", libraries=libraries())
    report(
        event="ran",
        seconds=seconds[: options.samples],
        repeats=seconds[inferences - options.repeats :],
        outputs=shapes,
        peak_memory_kib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )


def _inputs(given: list[tuple[str, Path, tuple[int, ...]]], samples: int) -> tuple[tuple[Port, ...], list[np.ndarray]]:
    """The ports, and each one's samples (N, 1, …)."""
    ports = tuple(Port(name, shape, "", name) for name, _, shape in given)
    return ports, [np.fromfile(path, RAW).reshape(samples, *shape) for _, path, shape in given]


def _input(text: str) -> tuple[str, Path, tuple[int, ...]]:
    name, _, rest = text.partition("=")
    path, _, shape = rest.rpartition(":")
    return name, Path(path), tuple(int(size) for size in shape.split("x"))


def _output(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    return name, Path(path)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line of ``runner.h``, after the name of a module in ``edge.runtimes``."""
    parser = argparse.ArgumentParser(prog="edge.bench.runner")
    parser.add_argument("runtime")
    parser.add_argument("artifact", type=Path)
    for name in ("threads", "samples", "warmups", "repeats", "limit"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--input", type=_input, action="append", required=True)
    parser.add_argument("--output", type=_output, action="append", required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run as asked; exit status 1 and a reason if that fails, SIGALRM at the limit."""
    options = parse(arguments)
    signal.alarm(options.limit)
    with protocol_only_stdout() as events:
        try:
            run(options, events)
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0]}"[:300]
            events.write(json.dumps({"event": "failed", "reason": reason}) + "\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
