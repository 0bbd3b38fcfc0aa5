"""``edge models``, ``targets`` and ``formats``: what there is; ``edge networks``: what was made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli import printing
from edge.cli.options import Json, Out, TargetName


def list_models(as_json: Json = False) -> None:
    """List the networks: parameters as trained and folded, multiply-accumulates, input."""
    import torch
    from torch import nn

    from edge.models import Entry, counts, entries

    def build(entry: Entry) -> nn.Module:
        with torch.device("meta"):  # shapes are enough to count
            return entry.build()

    rows = [
        {
            "name": entry.name,
            "params": counts.parameters(network := build(entry)),
            "params_folded": counts.parameters_folded(network, entry.input_shape),
            "macs": counts.macs(network, entry.input_shape),
            "input_shape": entry.input_shape,
            "outputs": entry.outputs,
            "source": entry.source,
        }
        for entry in printing.advancing(entries(), "counting")
    ]
    if as_json:
        printing.json_text(rows)
        return
    columns = ("name", "params", "params_folded", "macs")
    printing.table(
        "Networks",
        ("name", "parameters", "folded", "MACs", "input"),
        [
            (*(f"{row[c]:,}" if c != "name" else str(row[c]) for c in columns), "×".join(map(str, entry.input_shape)))
            for row, entry in zip(rows, entries(), strict=True)
        ],
    )


def networks(
    target: TargetName,
    out: Out = Path("dist"),
    kept: Annotated[Path, typer.Option(help="Where the figures of earlier exports are kept.")] = Path("docs/networks"),
    page: Annotated[
        Path | None, typer.Option(help="Write the table into this page, between its marks, and keep the figures.")
    ] = None,
) -> None:
    """Print what every export for a target measured, the kept ones and the finished ones, as one table in Markdown."""
    from edge import targets
    from edge.errors import InputError
    from edge.report import kept as figures
    from edge.report import networks as report

    name = targets.load(target).name
    found = figures.merge(kept / name, out / name)
    if not found:
        raise InputError(
            f"neither {kept / name} nor {out / name} has figures of a finished export of this version",
            stage="report",
            next_step="make one first: make export TARGET=… MODEL=… FORMATS=all",
        )
    text = report.table(found.values())
    if page is None:
        print(text)
        return
    report.put(text, page)
    figures.write(found, kept / name)
    printing.path(page, "wrote the table into")


def list_targets(as_json: Json = False) -> None:
    """List the devices there are profiles for."""
    from edge import targets

    profiles = [targets.load(name) for name in targets.names()]
    if as_json:
        printing.json_text([profile.model_dump(mode="json", exclude_none=True) for profile in profiles])
        return
    printing.table(
        "Targets",
        ("name", "device", "core", "peak FLOP/cycle", "formats", "also checked on"),
        [
            (
                profile.name,
                profile.title,
                f"{profile.core.cores} × {profile.core.cpu}, {profile.core.clock_ghz:g} GHz",
                ", ".join(f"{precision} {peak}" for precision, peak in profile.core.peak_flop_per_cycle.items()),
                ", ".join(profile.formats),
                ", ".join(profile.checked_on),
            )
            for profile in profiles
        ],
    )


def list_formats(as_json: Json = False) -> None:
    """List the artifact families, their precisions and what they mean, and the forms each converter is given."""
    from edge.formats import FORMATS

    if as_json:
        rows = [
            {
                "name": format.name,
                "title": format.title,
                "runs_with": format.runs_with,
                "files": format.suffixes,
                "precisions": format.precisions,
                "converters": {name: list(converter.forms) for name, converter in format.converters.items()},
            }
            for format in FORMATS.values()
        ]
        printing.json_text(rows)
        return
    printing.table(
        "Formats",
        ("name", "files", "runs with", "precision", "which is"),
        [
            (format.name, " ".join(format.suffixes), format.runs_with, precision, meaning)
            if first
            else ("", "", "", precision, meaning)
            for format in FORMATS.values()
            for first, (precision, meaning) in zip((True, *[False] * 9), format.precisions.items(), strict=False)
        ],
    )
    printing.table(
        "Forms of operators that a converter is given",
        ("name", "converter", "forms"),
        [
            (format.name, name, ", ".join(converter.forms) or "as they are")
            for format in FORMATS.values()
            for name, converter in format.converters.items()
        ],
    )
