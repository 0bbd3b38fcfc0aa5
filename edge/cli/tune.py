"""``edge tune`` and ``edge records``: the fastest choice for each kernel, and the data that keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli import printing
from edge.cli.options import JOBS, Budget, Jobs, Json, Model, Runner, TargetName
from edge.errors import ExitCode
from edge.tuning import BUDGET

Seed = Annotated[int, typer.Option(help="Decides what chance would.")]


def tune(
    model: Model,
    target: TargetName,
    runner: Runner = "emulated",
    budget: Budget = BUDGET,
    seed: Seed = 0,
    jobs: Jobs = JOBS,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what earlier runs measured.")] = False,
    file: Annotated[
        Path | None, typer.Option("--records", help="Keep the records here, not with the target's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the fastest choice for each of a network's kernels and keep it as a record of the target."""
    from edge import targets
    from edge.tuning import records
    from edge.tuning import tune as tuner

    profile = targets.load(target)
    found = tuner.tune(tuner.Plan(profile, runner, budget, seed, jobs, fresh, file), model, printing.reporter())
    if as_json:
        printing.json_text(found.model_dump(mode="json"))
    else:
        printing.path(file or records.path(profile.name))


def check(
    target: TargetName,
    runner: Runner = "emulated",
    sample: Annotated[int, typer.Option(min=1, help="How many records at most.")] = 5,
    seed: Seed = 0,
    jobs: Jobs = JOBS,
    as_json: Json = False,
) -> None:
    """Rebuild the kernels of a sample of records and measure them again."""
    from edge import targets
    from edge.tuning import check as checker

    checked = checker.check(targets.load(target), runner, sample, seed, printing.reporter(), jobs)
    if as_json:
        fields = ("problem", "recorded", "cost", "reason")
        values = [(c.record.problem, c.record.measured.cost, c.cost, c.reason) for c in checked]
        printing.json_text([dict(zip(fields, row, strict=True)) for row in values])
    else:
        rows = [
            (
                c.record.problem,
                f"{c.record.measured.cost:g}",
                "" if c.cost is None else f"{c.cost:g}",
                c.reason or "holds",
            )
            for c in checked
        ]
        printing.table(f"Records of {target}", ("problem", "recorded", "measured", ""), rows)
    raise typer.Exit(ExitCode.PARITY if any(c.reason for c in checked) else ExitCode.OK)


def merge(
    files: Annotated[list[Path], typer.Argument(help="Files of records of the same target.")], target: TargetName
) -> None:
    """Add records to a target's: the better of two that compare, the later of two that do not."""
    from edge import targets
    from edge.tuning import records

    merged = records.merge_into(targets.load(target), files)
    printing.path(records.path(target), f"{len(merged.records)} records")


def port(
    target: TargetName,
    like: Annotated[str, typer.Option(help="The target whose records are followed.")],
    runner: Runner = "emulated",
    budget: Budget = BUDGET,
    seed: Seed = 0,
    jobs: Jobs = JOBS,
) -> None:
    """Tune for every problem that another target has a record of, beginning with its choices."""
    from edge import targets
    from edge.tuning import port as porting
    from edge.tuning import records
    from edge.tuning.tune import Plan

    profile = targets.load(target)
    ported = porting.port(Plan(profile, runner, budget, seed, jobs), targets.load(like).name, printing.reporter())
    printing.path(records.path(profile.name), f"{len(ported.records)} records")
