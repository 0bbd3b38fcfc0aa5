"""The export, stage by stage: define, lower, emit, verify, write."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from edge import fingerprint, memory, processes, reuse
from edge.devices import closing_all, slug, takers
from edge.devices.find import find
from edge.errors import ExitCode, ExportError, InputError
from edge.finished import held
from edge.manifest import Manifest, artifact_entry, assemble, missing_entry, read
from edge.parity import vectors as check_vectors
from edge.progress import Reporter
from edge.request import Request, Unit, possible_units
from edge.reuse import Standing
from edge.stages import write as writing

LOGS = "logs"

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.devices import Device
    from edge.formats import Converter
    from edge.lowering import Outcome
    from edge.parity.vectors import Vectors
    from edge.processes import Emission
    from edge.stages.define import Network
    from edge.stages.emit import Inputs
    from edge.stages.lower import Programs


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
    devices = {name: find(name, request.target) for name in request.checked_on}
    with held(folder, reporter.note):
        writing.sweep(folder)
        sources = fingerprint.source_digest()
        keys = _keys(request, sources)
        finished, unfinished = (reuse.standing(each, keys, devices) for each in (folder, writing.unfinished(folder)))
        standing = reuse.joined(finished, unfinished, request.units)
        earlier = read(folder)
        if earlier and _nothing_to_do(request, earlier, standing):
            reporter.note(f"nothing has changed since {os.path.relpath(folder)} was made")
            return earlier
        try:
            with processes.session(), closing_all(devices.values()):
                return _make(request, reporter, keys, standing, tuple(devices.values()), sources, begin)
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
            if writing.unfinished(folder).exists():
                reporter.note("what was finished by then is kept for the next run")


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


def _nothing_to_do(request: Request, earlier: Manifest, standing: dict[Unit, Standing]) -> bool:
    listed = sum(len(each.entries) for each in standing.values())
    return all(unit in standing for unit in request.units) and listed == len(earlier["artifacts"])


def _make(
    request: Request,
    reporter: Reporter,
    keys: dict[Unit, str],
    standing: dict[Unit, Standing],
    devices: tuple[Device, ...],
    sources: str,
    begin: float,
) -> Manifest:
    from edge.stages.define import save_calibration
    from edge.stages.emit import Inputs

    folder = request.folder
    staged, scratch = writing.staging(folder), writing.scratch(folder)
    besides = reuse.beside(standing, request.units)
    network, programs = _lowered(request, [unit.converter for unit in (*request.units, *besides)], scratch, reporter)
    if programs.attention:
        request = replace(request, target=request.target.for_attention())

    vectors = network.vectors
    vectors.save(staged / check_vectors.FOLDER)
    inputs = Inputs(programs, scratch / "calibration.npz", staged / check_vectors.INPUTS)
    save_calibration(network, inputs.calibration)

    wanted = tuple(unit for unit in request.units if unit not in standing)
    lanes = [tuple(lane) for _, lane in groupby(wanted, key=lambda unit: unit.format)]
    threads = max(1, _cores() // max(1, min(request.jobs, len(lanes))))
    kept = {unit: standing[unit] for unit in request.units if unit in standing} | besides
    done = _Done(folder, {unit: each.entries for unit, each in kept.items()})
    for each in kept.values():
        each.carry_over(staged)
    if resumed := [unit for unit, each in kept.items() if each.folder != folder]:
        done.record()
        names = ", ".join(f"{unit.format.title} {unit.precision}" for unit in resumed)
        reporter.note(f"finished by a run that was interrupted: {names}")
    run = _Run(request, network, vectors, inputs, devices, keys, scratch, staged, threads, reporter, done)
    with reporter.running(), ThreadPoolExecutor(max_workers=request.jobs) as pool:
        futures = [pool.submit(_lane, run, lane) for lane in lanes]
        try:
            for future in futures:
                future.result()
        except BaseException:
            # The pool waits for its threads on the way out, and they for their workers.
            processes.end_all()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    ordered = [*request.units, *(unit for unit in kept if unit not in request.units)]
    artifacts = [entry for unit in ordered for entry in done.units[unit]]
    seconds = time.monotonic() - begin
    manifest = assemble(request, network, programs, artifacts, sources=sources, seconds=seconds)
    writing.write(manifest, folder)
    return manifest


def _lowered(
    request: Request, converters: list[Converter], scratch: Path, reporter: Reporter
) -> tuple[Network, Programs]:
    """Define the network and save its programs; neither is held after that, nor their memory."""
    from edge.stages.define import define
    from edge.stages.lower import lower

    reporter.note(f"define {request.name}")
    definition, network = define(request)
    reporter.note(f"  weights: {network.weights.source}")
    reporter.note(f"  PyTorch's own float32 error: {network.oracle.eager_sqnr_db:.1f} dB")

    reporter.note("lower")
    scratch.mkdir(parents=True)
    programs = lower(
        definition,
        network,
        converters,
        request.name,
        scratch,
        lambda outcome, formats: reporter.note(f"  {_describe(outcome, formats)}"),
    )
    del definition
    memory.give_back()
    return network, programs


@dataclass(frozen=True)
class _Done:
    """The units that are finished, noted in the staged folder as they come: an interruption does not lose them."""

    folder: Path
    units: dict[Unit, list[Manifest]]
    _lock: Lock = field(default_factory=Lock)

    def add(self, unit: Unit, entries: list[Manifest]) -> None:
        """One more; lanes run side by side."""
        with self._lock:
            self.units[unit] = entries
            if all(reuse.holds(entry) for entry in entries):
                self.record()

    def record(self) -> None:
        """Note them."""
        writing.record([entry for each in self.units.values() for entry in each], self.folder)


@dataclass(frozen=True)
class _Run:
    """What the lanes of one export share.

    Attributes:
        inputs: what the exporters read.
        devices: where artifacts are checked, in order.
        scratch: where workers leave their files, a folder for each lane.
        staged: where finished artifacts go.
        threads: for each worker.
    """

    request: Request
    network: Network
    vectors: Vectors
    inputs: Inputs
    devices: tuple[Device, ...]
    keys: dict[Unit, str]
    scratch: Path
    staged: Path
    threads: int
    reporter: Reporter
    done: _Done


def _lane(run: _Run, units: tuple[Unit, ...]) -> None:
    """Emit and verify one format; its artifacts end in the staged folder."""
    from edge.stages.emit import emit

    format = units[0].format
    work = run.scratch / format.name
    with run.reporter.lane(format.title) as step:
        emissions = emit(run.request, run.network, units, run.inputs, work, run.threads, step)
        for unit, emission in emissions.items():
            if emission.status == "emitted":
                run.done.add(unit, _checked(run, unit, emission, work, step))
                continue
            run.reporter.note(f"{format.title} {unit.precision}: {emission.status}: {emission.reason}")
            run.done.add(unit, [missing_entry(unit, run.keys[unit], emission)])
            if emission.status == "failed":
                _keep_log(run, processes.log_of(work), format.name)


def _checked(run: _Run, unit: Unit, emission: Emission, work: Path, step: Callable[[str], None]) -> list[Manifest]:
    """Move a unit's artifacts to the staged folder and check each on every device that takes it."""
    from edge.stages.verify import Subject, log_of_check, skipped, verify

    entries: dict[str, Manifest] = {}
    host_outputs: dict[str, str] = {}
    # The host's library goes first: what it gives is what the target's library is compared with.
    for file in sorted(emission.files, key=lambda file: file.runs_on == "target"):
        (work / file.file).rename(run.staged / file.file)
        if file.simulation:
            kept = f"{check_vectors.FOLDER}/{file.file}.simulation.npz"
            shutil.copy(work / file.simulation, run.staged / kept)
            file = replace(file, simulation=kept)
        checks = []
        for device in takers(run.devices, file):
            host = host_outputs.get(file.runtime)
            subject = Subject(
                file,
                run.staged / file.file,
                run.request.target,
                unit.precision,
                run.inputs.programs.of(unit.converter).largest_activation,
                run.network.facts.macs,
                run.staged / host if host else None,
            )
            place = work / f"{file.file}.on" / slug(device.name)
            check, outputs = verify(subject, run.vectors, device, place, run.threads, step)
            run.reporter.note(f"{file.file} on {device.name}: {check.verdict}")
            if outputs and device.name == "host":
                host_outputs[file.runtime] = f"{check_vectors.FOLDER}/{file.file}.host.npz"
                outputs.rename(run.staged / host_outputs[file.runtime])
            if check.status == "failed" and not check.measured:
                _keep_log(run, log_of_check(place), f"{file.file}.{slug(device.name)}")
            checks.append(check)
        host = host_outputs.get(file.runtime)
        if not checks:
            checks = [skipped(run.devices, file, run.request.target.gates[unit.precision])]
        entries[file.file] = artifact_entry(unit, run.keys[unit], emission, file, run.staged / file.file, checks, host)
    return [entries[file.file] for file in emission.files]


def _keep_log(run: _Run, log: Path, name: str) -> None:
    """What a failed worker printed goes into the folder with the artifacts; a device may have died without a word."""
    if not log.is_file():
        return
    kept = run.staged / LOGS / f"{name}.txt"
    kept.parent.mkdir(exist_ok=True)
    shutil.copy(log, kept)
    run.reporter.note(f"  what it printed: {LOGS}/{kept.name}")


def _describe(outcome: Outcome, formats: tuple[str, ...]) -> str:
    from edge.report.summary import decibels

    proof = "" if outcome.proof_db is None else f", proven in float64: {decibels(outcome.proof_db)}"
    refused = f", {len(outcome.refused)} refused: {outcome.refused[0].reason}" if outcome.refused else ""
    served = f" for {', '.join(formats)}" if formats else ""
    return f"{outcome.name}{served}: {outcome.matches} matches{proof}{refused}"


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
