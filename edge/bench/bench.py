"""``edge bench``: what an export made, and the peers on the same network, checked and measured on the same core."""

from __future__ import annotations

from edge.bench import peer_rows
from edge.bench.counting import Counting
from edge.bench.entrant import own, unmade
from edge.bench.measure import Measure
from edge.bench.results import Bench, ordered
from edge.bench.timing import Timing
from edge.finished import opened
from edge.manifest import emitted_file
from edge.progress import Reporter
from edge.request import Request
from edge.targets import Target

NOT_BENCHED = ("executorch_bundled",)
"""Runtimes of files that hold the same program as another file."""


def bench(request: Request, reporter: Reporter) -> Bench:
    """Export what does not stand yet, convert the network for every peer, check everything and measure what passes.

    A peer that does not convert, does not run or misses the gate is a row with the reason.

    Args:
        request: the export that is compared; its target's core is emulated, or this host's is one of its kind.
        reporter: shows progress.

    Returns:
        The rows; ``edge.bench.pages.write`` makes files of them.

    Raises:
        EdgeError: the target's code can run nowhere here, or the export itself could not be done.
    """
    measure = _measure(request.target)
    manifest = measure.export(request, reporter)
    files = [(entry, emitted_file(entry)) for entry in manifest["artifacts"] if entry["file"]]
    ours = [
        own(entry, request.folder, measure.device.name)
        for entry, file in files
        if file.runtime not in NOT_BENCHED and not measure.obstacle(file)
    ]
    ours += [unmade(entry, measure.device.name) for entry in manifest["artifacts"] if not entry["file"]]
    with opened(request.folder, reporter) as finished, reporter.running():
        peers = peer_rows.entrants(request, finished, measure, reporter)
        rows = measure.rows([*ours, *peers], finished, reporter)
    return Bench(
        target=request.target.name,
        title=request.target.title,
        by=measure.by,
        core=measure.core,
        network=request.name,
        macs=manifest["network"]["macs"],
        weights=manifest["weights"]["source"],
        samples=measure.device.samples(manifest["network"]["macs"]) or manifest["samples"],
        command=request.command.replace("make export", "make bench"),
        rows=ordered(rows, measure.by),
        method=measure.method(rows),
    )


def _measure(target: Target) -> Measure:
    """Counts on the emulated core, where there is one; a clock otherwise."""
    return Counting(target) if target.emulated else Timing(target)
