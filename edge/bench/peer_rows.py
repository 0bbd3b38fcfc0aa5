"""The peers: converted from the lowered network, and checked against the oracle where they are going to be measured.

Whatever goes wrong with a peer is its row's reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edge import processes
from edge.bench.entrant import Entrant
from edge.bench.measure import Measure
from edge.bench.peers import ENVIRONMENT, PRECISION, Peer, locked
from edge.bench.results import Row
from edge.devices import Device, Progress
from edge.errors import SetupError
from edge.finished import Finished
from edge.parity import vectors as check_vectors
from edge.processes import Emission
from edge.progress import Reporter
from edge.records import EmitJob, EmittedFile
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


def entrants(request: Request, finished: Finished, measure: Measure, reporter: Reporter) -> list[Entrant]:
    """One a peer; where the tools cannot be had all are skipped."""
    peers = locked(measure.wheels)
    try:
        with reporter.lane("peers") as step:
            environments.ensure(ENVIRONMENT, step)
            measure.device.ready(step)
            step("lowering the network")
            program = lowered(request, finished)
    except SetupError as error:
        return [Entrant(_row(peer, measure, "skipped", error.message)) for peer in peers]
    found = []
    for peer in peers:
        with reporter.lane(peer.title) as step:
            found.append(entrant(peer, program, measure, step))
        row = found[-1].row
        reporter.note(f"{row.runtime}: {row.status}{f': {row.reason}' if row.reason else ''}")
    return found


def lowered(request: Request, finished: Finished) -> Program:
    """Define and lower the network once more: the same request gives the same program."""
    from edge.stages.define import define, save_calibration
    from edge.stages.lower import lower

    definition, network = define(request)
    programs = lower(definition, network, (), request.name, finished.work, lambda outcome, formats: None)
    calibration = finished.work / "calibration.npz"
    save_calibration(network, calibration)
    return Program(finished, request.name, programs.common.file, calibration, network.inputs, network.facts.outputs)


def entrant(peer: Peer, program: Program, measure: Measure, step: Progress) -> Entrant:
    """Convert the network for a peer, and check what comes of it."""
    folder = program.finished.work / peer.name
    step("converting")
    emission = convert(peer, program, folder)
    if emission.status != "emitted":
        return Entrant(_row(peer, measure, emission.status, f"conversion: {emission.reason}"))
    (file,) = emission.files
    return judge(_row(peer, measure), program.finished, file, folder / file.file, measure.device, step)


def convert(peer: Peer, program: Program, folder: Path) -> Emission:
    """Convert the network, in a worker, into a new folder."""
    folder.mkdir()
    return processes.emit(_conversion(peer, program, folder), ENVIRONMENT, CONVERSION_LIMIT_S)[PRECISION]


def judge(row: Row, finished: Finished, file: EmittedFile, artifact: Path, device: Device, step: Progress) -> Entrant:
    """Check a converted network against the oracle.

    Args:
        row: the peer's; the rest of it is filled in.
        finished: the export that is compared.
        file: as converted.
        artifact: the saved file.
        device: where it runs.
        step: told what is done.
    """
    network = finished.manifest["network"]
    subject = Subject(file, artifact, finished.target, PRECISION, network["largest_activation"], network["macs"])
    vectors = finished.vectors("bench")
    check, _ = verify(subject, vectors, device, artifact.with_name(f"{artifact.name}.check"), THREADS, step)
    row = replace(
        row,
        status=check.status,
        reason=check.reason,
        file=file.file,
        bytes=_size(artifact),
        sqnr_db=check.measured.sqnr_db if check.measured else None,
    )
    return Entrant(row, file, artifact)


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


def _row(peer: Peer, measure: Measure, status: str = "", reason: str = "") -> Row:
    return Row(
        runtime=peer.runtime(measure.wheels),
        format=peer.name,
        precision=PRECISION,
        device=measure.device.name,
        file="",
        bytes=None,
        status=status,
        reason=reason,
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size
