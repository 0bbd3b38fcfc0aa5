"""``edge bench``: what an export made, and the peers on the same network, checked and counted on the same core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edge import costing, pipeline, processes
from edge.bench.emulated_python import EmulatedPython
from edge.bench.peers import CONVERTERS, PEERS, PRECISION, Peer
from edge.bench.results import Bench, Row, compared
from edge.cost import counter
from edge.cost.cost import UNKNOWN, cost
from edge.cost.places import Places
from edge.devices import native
from edge.devices.emulated import Emulated
from edge.errors import ExportError, SetupError, UsageError
from edge.finished import Finished, opened
from edge.manifest import Manifest, emitted_file
from edge.parity import vectors as check_vectors
from edge.progress import Reporter
from edge.records import EmitJob, EmittedFile, RunJob, to_json
from edge.request import Request
from edge.stages.verify import Subject, verify
from edge.toolchains import environments

THREADS = 1
CONVERSION_LIMIT_S = 900
NOT_BENCHED = ("executorch_bundled",)
"""Runtimes of files that hold the same program as another file."""

KERNELS = {"litert": "XNNPACK", "executorch": "XNNPACK"}
"""Whose kernels a runtime of ours runs, where its name does not say it."""


FIGURES = ("instructions", "vector_fma", "modelled_cycles", "floor_cycles", "share_of_floor")
"""Of a cost, what a row has."""


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
    pipeline.export(request, reporter)
    own = _own_rows(request, reporter)
    with opened(request.folder, reporter) as finished, reporter.running():
        rows = compared([*own, *_peer_rows(request, finished, reporter)])
    manifest = finished.manifest
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


def _own_rows(request: Request, reporter: Reporter) -> list[Row]:
    """What the export made and checked on the emulated core; what passed there and was not counted yet is counted."""
    with opened(request.folder, reporter) as finished:
        wanted = [entry["file"] for entry in _benched(finished) if _passed(entry) and not entry.get("cost")]
    if wanted:
        costing.count(request.folder, tuple(wanted), reporter)
    with opened(request.folder, reporter) as finished:
        return [_own_row(entry) for entry in _benched(finished)]


def _benched(finished: Finished) -> list[Manifest]:
    device = Emulated(finished.target)
    files = [(entry, emitted_file(entry)) for entry in finished.artifacts]
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
    return replace(row, **{name: entry["cost"][name] for name in FIGURES}) if _passed(entry) else row


def _with_kernels(file: EmittedFile) -> str:
    kernels = KERNELS.get(file.runtime)
    return f"{native.title(file.runtime)}{f' ({kernels})' if kernels else ''}"


def _peer_rows(request: Request, finished: Finished, reporter: Reporter) -> Iterator[Row]:
    """The peers' rows: converted from the same lowered network, checked against the same oracle."""
    device = EmulatedPython(finished.target)
    try:
        with reporter.lane("peers") as step:
            environments.ensure(CONVERTERS, step)
            device.ready(step)
    except SetupError as error:
        yield from (_peer_row(peer, "skipped", error.message) for peer in PEERS.values())
        return
    program = _Program.of(request, finished.work)
    for peer in PEERS.values():
        with reporter.lane(peer.title) as step:
            step("converting")
            job = program.job(peer, finished)
            emission = processes.emit(job, CONVERTERS, CONVERSION_LIMIT_S)[PRECISION]
            if emission.status != "emitted":
                yield _peer_row(peer, emission.status, f"conversion: {emission.reason}")
                continue
            (file,) = emission.files
            artifact = job.folder / file.file
            check, _ = verify(
                Subject(file, artifact, finished.target, PRECISION, finished.manifest["network"]["largest_activation"]),
                check_vectors.load(finished.folder / pipeline.VECTORS),
                device,
                finished.work / f"{file.file}.check",
                THREADS,
                step,
            )
        row = replace(
            _peer_row(peer, check.status, check.reason),
            file=file.file,
            bytes=_size(artifact),
            sqnr_db=check.measured.sqnr_db if check.measured else None,
        )
        if row.status == "passed":
            with reporter.lane(peer.title) as step:
                step("counting")
                row = _counted(row, finished, device, file, artifact)
        reporter.note(f"{row.runtime}: {_found(row)}")
        yield row


def _peer_row(peer: Peer, status: str, reason: str) -> Row:
    return Row(
        runtime=f"{peer.title} {peer.version}",
        format=peer.name,
        precision=PRECISION,
        device=EmulatedPython.name,
        file="",
        bytes=None,
        status=status,
        reason=reason,
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size


@dataclass(frozen=True)
class _Program:
    """The lowered network as the export made it, with what a conversion needs besides.

    Attributes:
        model: the network's name.
        files: the program and the calibration samples.
        inputs, outputs: the program's names.
        folder: for the conversions.
    """

    model: str
    files: tuple[Path, Path]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    folder: Path

    @classmethod
    def of(cls, request: Request, folder: Path) -> _Program:
        """Define and lower the network once more: the same request gives the same program."""
        from edge.lowering import lower
        from edge.stages import define

        network = define.define(request)
        lowered = lower(network.program, define.proof_samples(network), model=request.name)
        files = define.save(network, lowered.program, folder)
        return cls(request.name, files, network.inputs, network.facts.outputs, folder)

    def job(self, peer: Peer, finished: Finished) -> EmitJob:
        """The conversion for a peer."""
        folder = self.folder / peer.name
        folder.mkdir()
        return EmitJob(
            backend=f"edge.bench.converters.{peer.name}",
            model=self.model,
            program=self.files[0],
            inputs=self.inputs,
            outputs=self.outputs,
            precisions=(PRECISION,),
            calibration=self.files[1],
            check_inputs=finished.folder / pipeline.VECTORS / "inputs.npz",
            target=finished.target.model_dump(mode="json"),
            folder=folder,
            threads=THREADS,
        )


def _counted(row: Row, finished: Finished, device: EmulatedPython, file: EmittedFile, artifact: Path) -> Row:
    """The row with its cost, or with the reason why it has none."""
    work = finished.work / f"{file.file}.count"
    work.mkdir()
    job = RunJob(
        runtime=file.runtime,
        artifact=artifact,
        inputs=file.inputs,
        outputs=file.outputs,
        check_inputs=finished.folder / pipeline.VECTORS / "inputs.npz",
        results=work / "outputs.npz",
        threads=THREADS,
    )
    run = device.count(job)
    if run.executed is None:
        return replace(row, status="failed", reason=f"counting: {run.reason}")
    places = Places(run.libraries, run.executed.parent)
    macs = finished.manifest["network"]["macs"]
    try:
        found = to_json(cost(counter.read(run.executed), places, finished.target, macs))
    except (ExportError, SetupError) as error:
        return replace(row, status="failed", reason=f"counting: {error.message}")
    return replace(row, **{name: found[name] for name in FIGURES})


def _found(row: Row) -> str:
    if row.modelled_cycles is None:
        return f"{row.status}: {row.reason}"
    return f"{row.modelled_cycles / 1e6:.1f} M modelled cycles"
