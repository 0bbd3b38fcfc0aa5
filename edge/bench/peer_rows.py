"""The peers' rows: converted from the lowered network, checked against the oracle, counted on the emulated core.

Whatever goes wrong with a peer is its row's reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edge import processes
from edge.bench.emulated_python import EmulatedPython
from edge.bench.peers import CONVERTERS, PEERS, PRECISION, Peer
from edge.bench.results import Row
from edge.cost import counter
from edge.cost.cost import cost
from edge.cost.places import Places
from edge.devices import Progress
from edge.errors import ExportError, SetupError
from edge.finished import Finished
from edge.parity import vectors as check_vectors
from edge.processes import Emission
from edge.progress import Reporter
from edge.records import EmitJob, EmittedFile, RunJob, to_json
from edge.request import Request
from edge.stages.verify import Subject, verify
from edge.toolchains import environments

THREADS = 1
CONVERSION_LIMIT_S = 900


@dataclass(frozen=True)
class Program:
    """The lowered network, and what its conversion needs besides.

    Attributes:
        finished: the export that is compared.
        model: the network's name.
        file: the saved program.
        calibration: .npz with the calibration samples.
        inputs, outputs: the program's names.
    """

    finished: Finished
    model: str
    file: Path
    calibration: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def rows(request: Request, finished: Finished, reporter: Reporter) -> Iterator[Row]:
    """A row a peer; where the tools cannot be had all are skipped."""
    device = EmulatedPython(finished.target)
    try:
        with reporter.lane("peers") as step:
            environments.ensure(CONVERTERS, step)
            device.ready(step)
            step("lowering the network")
            program = lowered(request, finished)
    except SetupError as error:
        yield from (_without_file(peer, "skipped", error.message) for peer in PEERS.values())
        return
    for peer in PEERS.values():
        with reporter.lane(peer.title) as step:
            row = compare(peer, program, device, step)
        reporter.note(f"{row.runtime}: {row.verdict}")
        yield row


def lowered(request: Request, finished: Finished) -> Program:
    """Define and lower the network once more: the same request gives the same program."""
    from edge.lowering import lower
    from edge.stages import define

    network = define.define(request)
    program = lower(network.program, define.proof_samples(network), model=request.name).program
    file, calibration = define.save(network, program, finished.work)
    return Program(finished, request.name, file, calibration, network.inputs, network.facts.outputs)


def compare(peer: Peer, program: Program, device: EmulatedPython, step: Progress) -> Row:
    """Convert, check, and count what passes."""
    folder = program.finished.work / peer.name
    step("converting")
    emission = convert(peer, program, folder)
    if emission.status != "emitted":
        return _without_file(peer, emission.status, f"conversion: {emission.reason}")
    (file,) = emission.files
    return judge(peer, program.finished, file, folder / file.file, device, folder / "run", step)


def convert(peer: Peer, program: Program, folder: Path) -> Emission:
    """Convert the network, in a worker, into a new folder."""
    folder.mkdir()
    return processes.emit(_conversion(peer, program, folder), CONVERTERS, CONVERSION_LIMIT_S)[PRECISION]


def judge(
    peer: Peer,
    finished: Finished,
    file: EmittedFile,
    artifact: Path,
    device: EmulatedPython,
    work: Path,
    step: Progress,
) -> Row:
    """Check a converted network against the oracle, and count it if it passes.

    Args:
        peer: whose it is.
        finished: the export that is compared.
        file: as converted.
        artifact: the saved file.
        device: where it runs.
        work: new folder for what the runs need and leave.
        step: told what is done.
    """
    largest = finished.manifest["network"]["largest_activation"]
    subject = Subject(file, artifact, finished.target, PRECISION, largest)
    vectors = finished.vectors("bench")
    check, _ = verify(subject, vectors, device, work / "check", THREADS, step)
    row = replace(
        _without_file(peer, check.status, check.reason),
        file=file.file,
        bytes=_size(artifact),
        sqnr_db=check.measured.sqnr_db if check.measured else None,
    )
    if row.status != "passed":
        return row
    step("counting")
    return _counted(row, finished, device, file, artifact, work / "count")


def _conversion(peer: Peer, program: Program, folder: Path) -> EmitJob:
    return EmitJob(
        backend=f"edge.bench.converters.{peer.name}",
        model=program.model,
        program=program.file,
        inputs=program.inputs,
        outputs=program.outputs,
        precisions=(PRECISION,),
        calibration=program.calibration,
        check_inputs=program.finished.folder / check_vectors.INPUTS,
        target=program.finished.target.model_dump(mode="json"),
        folder=folder,
        threads=THREADS,
    )


def _without_file(peer: Peer, status: str, reason: str) -> Row:
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


def _counted(
    row: Row, finished: Finished, device: EmulatedPython, file: EmittedFile, artifact: Path, work: Path
) -> Row:
    """The row with its cost, or with the reason why it has none."""
    work.mkdir()
    job = RunJob(
        runtime=file.runtime,
        artifact=artifact,
        inputs=file.inputs,
        outputs=file.outputs,
        check_inputs=finished.folder / check_vectors.INPUTS,
        results=work / "outputs.npz",
        threads=THREADS,
    )
    run = device.count(job)
    if run.executed is None:
        return replace(row, status="failed", reason=f"counting: {run.reason}")
    places = Places(run.libraries, run.executed.parent)
    macs = finished.manifest["network"]["macs"]
    try:
        return row.costing(to_json(cost(counter.read(run.executed), places, finished.target, macs)))
    except (ExportError, SetupError) as error:
        return replace(row, status="failed", reason=f"counting: {error.message}")
