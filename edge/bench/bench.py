"""``edge bench``: what an export made, and the peers on the same network, checked and counted on the same core."""

from __future__ import annotations

from edge import costing, pipeline
from edge.bench import peer_rows
from edge.bench.results import Bench, Row, compared
from edge.cost.cost import UNKNOWN
from edge.devices import native
from edge.devices.emulated import Emulated
from edge.errors import UsageError
from edge.finished import opened
from edge.manifest import Manifest, emitted_file
from edge.progress import Reporter
from edge.records import EmittedFile
from edge.request import Request

NOT_BENCHED = ("executorch_bundled",)
"""Runtimes of files that hold the same program as another file."""

KERNELS = {"litert": "XNNPACK", "executorch": "XNNPACK"}
"""Whose kernels a runtime of ours runs, where its name does not say it."""


def bench(request: Request, reporter: Reporter) -> Bench:
    """Export what does not stand yet, convert the network for every peer, and check and count everything.

    A peer that does not convert, does not run or misses the gate is a row with the reason.

    Args:
        request: the export that is compared; its target has an emulated core.
        reporter: shows progress.

    Returns:
        The rows; ``edge.bench.pages.write`` makes files of them.

    Raises:
        EdgeError: the target has no emulated core, or the export itself could not be done.
    """
    if request.target.emulated is None:
        raise UsageError(
            "its core is not emulated, so nothing can be counted",
            stage="bench",
            model=request.name,
            target=request.target.name,
            next_step="`edge targets` shows which cores are emulated",
        )
    manifest = pipeline.export(request, reporter)
    if uncounted := [
        entry["file"] for entry in _benched(manifest, request) if _passed(entry) and not entry.get("cost")
    ]:
        manifest, _ = costing.count(request.folder, tuple(uncounted), reporter)
    own = [_own_row(entry) for entry in _benched(manifest, request)]
    with opened(request.folder, reporter) as finished, reporter.running():
        rows = compared([*own, *peer_rows.rows(request, finished, reporter)])
    return Bench(
        target=request.target.name,
        title=request.target.title,
        core=request.target.emulated.cpu,
        network=request.name,
        macs=manifest["network"]["macs"],
        weights=manifest["weights"]["source"],
        scheduling_model=request.target.emulated.scheduling_model,
        samples=Emulated.samples,
        command=request.command.replace("make export", "make bench"),
        rows=rows,
        unknown=UNKNOWN,
    )


def _benched(manifest: Manifest, request: Request) -> list[Manifest]:
    """Entries of the files that the emulated core takes, each program once."""
    device = Emulated(request.target)
    files = [(entry, emitted_file(entry)) for entry in manifest["artifacts"] if entry["file"]]
    return [entry for entry, file in files if file.runtime not in NOT_BENCHED and not device.obstacle(file)]


def _check(entry: Manifest) -> Manifest:
    skipped = {"status": "skipped", "reason": f"not checked on {Emulated.name}"}
    return next((check for check in entry["checks"] if check["device"] == Emulated.name), skipped)


def _passed(entry: Manifest) -> bool:
    return _check(entry)["status"] == "passed"


def _own_row(entry: Manifest) -> Row:
    file, check = emitted_file(entry), _check(entry)
    row = Row(
        runtime=_with_kernels(file),
        format=entry["format"],
        precision=entry["precision"],
        device=Emulated.name,
        file=file.file,
        bytes=entry["bytes"],
        status=check["status"],
        reason=check["reason"],
        sqnr_db=check.get("sqnr_db"),
    )
    return row.costing(entry["cost"]) if _passed(entry) else row


def _with_kernels(file: EmittedFile) -> str:
    kernels = KERNELS.get(file.runtime)
    return f"{native.title(file.runtime)}{f' {kernels}' if kernels else ''}"
