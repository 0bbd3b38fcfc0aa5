"""The export, stage by stage: define, lower, emit, verify, write."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import fingerprint, processes, reuse
from edge.errors import ExitCode, ExportError, InputError
from edge.manifest import Manifest, artifact_entry, assemble, missing_entry, read
from edge.progress import Reporter
from edge.request import Request, Unit, possible_units
from edge.stages import write as writing
from edge.toolchains.environments import exclusive
from edge.toolchains.places import LOCKS

LOGS = "logs"

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.lowering import Lowered, Outcome
    from edge.processes import Emission
    from edge.records import EmittedFile
    from edge.stages.define import Network
    from edge.stages.verify import Check


def export(request: Request, reporter: Reporter) -> Manifest:
    """Make and check every unit of the request, and write ``<out>/<target>/<model>/``.

    What still stands from an earlier run is kept; if that is everything, nothing is done.

    Args:
        request: what to make.
        reporter: shows progress.

    Returns:
        The manifest, as written.

    Raises:
        EdgeError: a stage that everything else needs could not be done. A format that fails is a row of the manifest.
    """
    begin = time.monotonic()
    folder = request.folder
    lock = LOCKS / fingerprint.text_digest([str(folder.resolve())])
    with exclusive(lock, lambda: reporter.note(f"waiting for another run that writes {os.path.relpath(folder)}")):
        writing.sweep(folder)
        sources = fingerprint.source_digest()
        keys = _keys(request, sources)
        standing = reuse.standing(folder, keys)
        earlier = read(folder)
        if earlier and _nothing_to_do(request, earlier, standing):
            reporter.note(f"nothing has changed since {os.path.relpath(folder)} was made")
            return earlier
        try:
            with processes.session():
                return _make(request, reporter, keys, standing, sources, begin)
        except OSError as error:
            raise ExportError(
                f"could not write {error.filename or folder}: {error.strerror or error}",
                stage="write",
                model=request.name,
                target=request.target.name,
                next_step="check that the folder may be written and the disk has room; what was there is untouched",
            ) from error
        finally:
            writing.sweep(folder)


def _keys(request: Request, sources: str) -> dict[Unit, str]:
    """The fingerprint of every unit there could be: an artifact that was not asked for this time may still stand."""
    from edge.calibration import photographs

    for path in (request.checkpoint, Path(request.model) if request.is_program else None):
        if path and not path.is_file():
            raise InputError(f"there is no file {path}", stage="define", model=request.name, next_step="check the path")
    common: dict[str, Any] = {
        "sources": sources,
        "target": request.target.model_dump(mode="json"),
        "model": request.name,
        "program": fingerprint.file_digest(Path(request.model)) if request.is_program else None,
        "checkpoint": fingerprint.file_digest(request.checkpoint) if request.checkpoint else None,
        "calibration": photographs.digest(request.calibration),
    }
    return {
        unit: fingerprint.artifact_key(
            common,
            format=unit.format.name,
            converter=unit.converter_name,
            precision=unit.precision,
            environment=unit.converter.environment,
        )
        for unit in {*possible_units(), *request.units}
    }


def _nothing_to_do(request: Request, earlier: Manifest, standing: dict[Unit, list[Manifest]]) -> bool:
    listed = sum(len(entries) for entries in standing.values())
    return all(unit in standing for unit in request.units) and listed == len(earlier["artifacts"])


def _make(
    request: Request,
    reporter: Reporter,
    keys: dict[Unit, str],
    standing: dict[Unit, list[Manifest]],
    sources: str,
    begin: float,
) -> Manifest:
    from edge.lowering import lower
    from edge.stages import define

    folder = request.folder
    reporter.note(f"define {request.name}")
    network = define.define(request)
    reporter.note(f"  weights: {network.weights.source}")
    reporter.note(f"  PyTorch's own float32 error: {network.oracle.eager_sqnr_db:.1f} dB")

    reporter.note("lower")
    lowered = lower(
        network.program,
        define.proof_samples(network),
        model=request.name,
        on_outcome=lambda outcome: reporter.note(f"  {_describe(outcome)}"),
    )

    staged, scratch = writing.staging(folder), writing.scratch(folder)
    staged.mkdir(parents=True)
    inputs = define.save(network, lowered.program, scratch)

    wanted = tuple(unit for unit in request.units if unit not in standing)
    lanes = [tuple(lane) for _, lane in groupby(wanted, key=lambda unit: unit.format)]
    threads = max(1, _cores() // max(1, min(request.jobs, len(lanes))))
    run = _Run(request, network, lowered, inputs, keys, scratch, staged, threads, reporter)
    with reporter.running(), ThreadPoolExecutor(max_workers=request.jobs) as pool:
        futures = [pool.submit(_lane, run, lane) for lane in lanes]
        try:
            made = {unit: entries for future in futures for unit, entries in future.result().items()}
        except BaseException:
            # The pool waits for its threads on the way out, and they for their workers.
            processes.end_all()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    kept = {unit: standing[unit] for unit in request.units if unit in standing} | reuse.beside(standing, request.units)
    for entries in kept.values():
        reuse.carry_over(entries, folder, staged)

    everything = made | kept
    ordered = [*request.units, *(unit for unit in kept if unit not in request.units)]
    artifacts = [entry for unit in ordered for entry in everything[unit]]
    seconds = time.monotonic() - begin
    manifest = assemble(request, network, lowered, artifacts, sources=sources, seconds=seconds)
    writing.write(manifest, folder)
    return manifest


@dataclass(frozen=True)
class _Run:
    """What the lanes of one export share.

    Attributes:
        inputs: the lowered program, the calibration samples and the check samples, as files.
        scratch: where workers leave their files, a folder for each lane.
        staged: where finished artifacts go.
        threads: for each worker.
    """

    request: Request
    network: Network
    lowered: Lowered
    inputs: tuple[Path, Path, Path]
    keys: dict[Unit, str]
    scratch: Path
    staged: Path
    threads: int
    reporter: Reporter


def _lane(run: _Run, units: tuple[Unit, ...]) -> dict[Unit, list[Manifest]]:
    """Emit and verify one format; its artifacts end in the staged folder."""
    from edge.stages.emit import emit

    format = units[0].format
    work = run.scratch / format.name
    results: dict[Unit, list[Manifest]] = {}
    with run.reporter.lane(format.title) as step:
        emissions = emit(run.request, run.network, units, run.inputs, work, run.threads, step)
        for unit, emission in emissions.items():
            if emission.status == "emitted":
                results[unit] = [_checked(run, unit, emission, file, work, step) for file in emission.files]
                continue
            run.reporter.note(f"{format.title} {unit.precision}: {emission.status}: {emission.reason}")
            results[unit] = [missing_entry(unit, run.keys[unit], emission)]
            if emission.status == "failed":
                _keep_log(run, processes.log_of(work), format.name)
    return results


def _checked(
    run: _Run, unit: Unit, emission: Emission, file: EmittedFile, work: Path, step: Callable[[str], None]
) -> Manifest:
    """Verify one artifact and move it to the staged folder."""
    from edge.stages.verify import results_file, verify

    step(f"checking {file.file}")
    gate = run.request.target.gates[unit.precision]
    check = verify(file, work, run.network, run.lowered.largest_activation, run.inputs[2], gate, run.threads)
    run.reporter.note(f"{file.file}: {_verdict(check)}")
    if check.status == "failed" and check.measured is None:
        _keep_log(run, processes.log_of(results_file(work, file)), file.file)
    entry = artifact_entry(unit, run.keys[unit], emission, file, work, check)
    (work / file.file).rename(run.staged / file.file)
    return entry


def _keep_log(run: _Run, log: Path, name: str) -> None:
    """What a failed worker printed goes into the folder with the artifacts."""
    kept = run.staged / LOGS / f"{name}.txt"
    kept.parent.mkdir(exist_ok=True)
    shutil.copy(log, kept)
    run.reporter.note(f"  what it printed: {LOGS}/{kept.name}")


def _verdict(check: Check) -> str:
    figure = f" at {check.measured.sqnr_db:.1f} dB" if check.measured else ""
    return f"{check.status}{figure}{f': {check.reason}' if check.reason else ''}"


def _describe(outcome: Outcome) -> str:
    from edge.report.summary import decibels

    proof = "" if outcome.proof_db is None else f", proven in float64: {decibels(outcome.proof_db)}"
    refused = f", {len(outcome.refused)} refused: {outcome.refused[0].reason}" if outcome.refused else ""
    return f"{outcome.name}: {outcome.matches} matches{proof}{refused}"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def exit_code(manifest: Manifest, require: bool) -> ExitCode:
    """What the shell gets: a missed gate outranks a failed exporter, a skip counts only when it must not be."""
    checks = [(entry, check) for entry in manifest["artifacts"] for check in entry["checks"]]
    failed = [entry for entry, check in checks if check["status"] == "failed"]
    if any(entry["file"] for entry in failed):
        return ExitCode.PARITY
    if failed or (require and any(check["status"] == "skipped" for _, check in checks)):
        return ExitCode.EXPORT
    return ExitCode.OK
