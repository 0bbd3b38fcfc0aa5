"""``edge export``, ``verify`` and ``cost``: artifacts made, checked again, counted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli import printing
from edge.cli.options import (
    JOBS,
    Calibration,
    Checkpoint,
    Devices,
    Folder,
    Formats,
    Jobs,
    Json,
    Model,
    Out,
    Precisions,
    Require,
    TargetName,
    names,
)

REPORT = "report.html"


def export(
    model: Model,
    target: TargetName,
    checkpoint: Checkpoint = None,
    calibration: Calibration = None,
    formats: Formats = None,
    precisions: Precisions = None,
    out: Out = Path("dist"),
    jobs: Jobs = JOBS,
    tflite_converter: Annotated[str, typer.Option(help="litert (default) or onnx2tf.")] = "",
    require: Require = False,
    devices: Devices = None,
    as_json: Json = False,
) -> None:
    """Lower a network, emit every artifact the target takes, run each saved file and hold it against its gate."""
    from edge import pipeline, targets
    from edge.request import Request

    profile = targets.load(target)
    request = Request(
        model,
        profile,
        names(formats),
        names(precisions),
        tflite_converter,
        checkpoint,
        calibration,
        out,
        jobs,
        require,
        names(devices),
    )
    manifest = pipeline.export(request, printing.reporter())
    _print_manifest(manifest, request.folder, as_json)
    raise typer.Exit(pipeline.exit_code(manifest, require))


def _print_manifest(manifest: dict[str, Any], folder: Path, as_json: bool) -> None:
    from edge.report import terminal

    if as_json:
        printing.json_text(manifest)
        return
    printing.console().print(terminal.table(manifest))
    printing.path(folder / REPORT, terminal.verdict(manifest))


def verify(
    folder: Folder,
    devices: Devices = None,
    require: Require = False,
    as_json: Json = False,
) -> None:
    """Check finished artifacts again, on any device, without making them again."""
    from edge import pipeline
    from edge.verification import verify_again

    manifest = verify_again(folder, names(devices), printing.reporter())
    _print_manifest(manifest, folder, as_json)
    raise typer.Exit(pipeline.exit_code(manifest, require))


def cost(
    folder: Folder,
    artifacts: Annotated[list[str] | None, typer.Option("--artifact", help="Only these files; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Count one inference of each artifact on the emulated core: instructions, modelled cycles, the hottest code."""
    from edge import costing
    from edge.report import terminal

    manifest, counted = costing.count(folder, names(artifacts), printing.reporter())
    if as_json:
        printing.json_text(costing.figures(manifest, counted))
        return
    for table in terminal.cost_tables(manifest, counted):
        printing.console().print(table)
    printing.path(folder / REPORT)
