"""``edge bench`` and ``bench-ops``: networks and operators compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli import printing
from edge.cli.options import (
    JOBS,
    Budget,
    Calibration,
    Checkpoint,
    Formats,
    Jobs,
    Json,
    Model,
    Out,
    Precisions,
    Runner,
    TargetName,
    names,
)
from edge.errors import ExitCode
from edge.tuning import BUDGET


def bench(
    model: Model,
    target: TargetName,
    checkpoint: Checkpoint = None,
    calibration: Calibration = None,
    formats: Formats = None,
    precisions: Precisions = None,
    out: Out = Path("dist"),
    page: Annotated[Path | None, typer.Option(help="Write the page and its drawing to this folder too.")] = None,
    as_json: Json = False,
) -> None:
    """Export, and compare with the peers on the same network: counted on the emulated core, or timed on this host."""
    from edge import targets
    from edge.bench import bench as run
    from edge.bench import pages, table
    from edge.formats import FORMATS
    from edge.records import to_json
    from edge.request import Request

    request = Request(
        model,
        targets.load(target),
        names(formats),
        names(precisions),
        checkpoint=checkpoint,
        calibration=calibration,
        out=out,
    )
    found = run.bench(request, printing.reporter())
    written = [pages.save(found, request.folder)]
    if page:
        written.append(pages.write(found, page, pages.docs_name(found)))
    if as_json:
        printing.json_text([to_json(row) for row in found.rows])
    else:
        printing.console().print(table.table(found))
        for file in written:
            printing.path(file)
    if any(row.status == "failed" for row in found.rows if row.format in FORMATS):
        raise typer.Exit(ExitCode.PARITY)


def bench_operators(
    target: TargetName,
    runner: Runner = "emulated",
    budget: Budget = BUDGET,
    page: Annotated[Path, typer.Option(help="The folder that gets the page and its drawing.")] = Path("docs"),
    jobs: Jobs = JOBS,
    out: Out = Path("dist"),
) -> None:
    """FasterNet's Table 1 in our terms: each operator with the best kernel that tuning finds for it."""
    from edge import targets
    from edge.bench import operators
    from edge.tuning.tune import Plan

    plan = Plan(targets.load(target), runner, budget, jobs=jobs)
    printing.path(operators.bench(plan, page, out, printing.reporter()))
