"""Emit: the units of one format, in a worker process of the format's own environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge import processes
from edge.errors import SetupError
from edge.processes import Emission
from edge.records import EmitJob
from edge.request import Request, Unit
from edge.stages.define import Network
from edge.stages.lower import Programs
from edge.toolchains import environments


@dataclass(frozen=True)
class Inputs:
    """What exporters read, as files.

    Attributes:
        programs: the lowered network.
        calibration: the calibration samples.
        check: the samples of every check.
    """

    programs: Programs
    calibration: Path
    check: Path


def emit(
    request: Request,
    network: Network,
    units: tuple[Unit, ...],
    inputs: Inputs,
    folder: Path,
    threads: int,
    progress: Callable[[str], None],
) -> dict[Unit, Emission]:
    """Emit the units of one format and converter; whatever happens is a result.

    Args:
        request: the export.
        network: for its input and output names.
        units: of one format, with one converter.
        inputs: what the exporter reads.
        folder: new and empty; receives the files.
        threads: how many the worker may use.
        progress: called with a line of text as the work goes on.
    """
    obstacles = {unit: Emission("skipped", unit.obstacle) for unit in units if unit.obstacle}
    wanted = tuple(unit for unit in units if not unit.obstacle)
    if not wanted:
        return obstacles
    converter = wanted[0].converter
    try:
        environments.ensure(converter.environment, progress)
    except SetupError as error:
        return {**obstacles, **{unit: Emission("skipped", error.message) for unit in wanted}}
    folder.mkdir(parents=True)
    job = EmitJob(
        backend=converter.backend,
        model=request.name,
        program=inputs.programs.of(converter).file,
        inputs=network.inputs,
        outputs=network.facts.outputs,
        precisions=tuple(unit.precision for unit in wanted),
        calibration=inputs.calibration,
        check_inputs=inputs.check,
        target=request.target.model_dump(mode="json"),
        folder=folder,
        threads=threads,
    )

    def on_event(event: dict[str, str]) -> None:
        progress(f"{event['precision']} {event.get('text', event['event'])}")

    emissions = processes.emit(job, converter.environment, wanted[0].format.limit_s, on_event)
    return {**obstacles, **{unit: emissions[unit.precision] for unit in wanted}}
