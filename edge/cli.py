"""The ``edge`` command; thin: it reads options, calls the pipeline, prints tables."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from edge.errors import EdgeError, ExitCode

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="edge",
    help="Takes a PyTorch vision network to phones and boards, and proves what it ships.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device", help="Where to check: host, emulated, software-gpu, ssh://user@board, adb:<serial>; repeatable."
    ),
]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights: safetensors, or a torch file.")]
Formats = Annotated[list[str] | None, typer.Option(help="Families, or `all` (see `edge formats`).")]
Model = Annotated[str, typer.Argument(help="A network's name (see `edge models`), or your own program.pt2.")]
Out = Annotated[Path, typer.Option(help="The folder that gets <target>/<model>/.")]
Precisions = Annotated[list[str] | None, typer.Option(help="fp32, fp16, int8.")]
TargetName = Annotated[str, typer.Option("--target", help="The device (see `edge targets`).")]
Calibration = Annotated[Path | None, typer.Option(help="Folder of your own images for int8.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    # Where nobody watches (a log, CI) the width is that of the tables.
    width = None if sys.stdout.isatty() else 100
    return Console(stderr=stderr, width=width)


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=1, ensure_ascii=False))


def _print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _names(values: list[str]) -> tuple[str, ...]:
    """Options that take lists: repeated, or one text with commas or spaces."""
    return tuple(name for value in values for name in value.replace(",", " ").split())


@app.command()
def export(
    model: Model,
    target: TargetName,
    checkpoint: Checkpoint = None,
    calibration: Calibration = None,
    formats: Formats = None,
    precisions: Precisions = None,
    out: Out = Path("dist"),
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes side by side.")] = min(2, os.cpu_count() or 1),
    tflite_converter: Annotated[str, typer.Option(help="litert (default) or onnx2tf.")] = "",
    require: Annotated[bool, typer.Option(help="Fail if a check had to be skipped.")] = False,
    devices: Devices = None,
    as_json: Json = False,
) -> None:
    """Lower a network, emit every artifact the target takes, run each saved file and hold it against its gate."""
    from edge import pipeline, targets
    from edge.progress import Reporter
    from edge.request import Request

    profile = targets.load(target)
    request = Request(
        model,
        profile,
        _names(formats or []),
        _names(precisions or []),
        tflite_converter,
        checkpoint,
        calibration,
        out,
        jobs,
        require,
        _names(devices or []),
    )
    manifest = pipeline.export(request, Reporter(_console(stderr=True)))
    _print_manifest(manifest, request.folder, as_json)
    raise typer.Exit(pipeline.exit_code(manifest, require))


def _print_manifest(manifest: dict[str, Any], folder: Path, as_json: bool) -> None:
    from edge.report import terminal

    if as_json:
        _print_json(manifest)
        return
    console = _console()
    console.print(terminal.table(manifest))
    page = f"{os.path.relpath(folder)}/report.html"
    console.print(f"{terminal.verdict(manifest)}\n{page}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="What an export made: dist/<target>/<model>.")],
    devices: Devices = None,
    require: Annotated[bool, typer.Option(help="Fail if a check had to be skipped.")] = False,
    as_json: Json = False,
) -> None:
    """Check finished artifacts again, on any device, without making them again."""
    from edge import pipeline
    from edge.progress import Reporter
    from edge.verification import verify_again

    manifest = verify_again(folder, _names(devices or []), Reporter(_console(stderr=True)))
    _print_manifest(manifest, folder, as_json)
    raise typer.Exit(pipeline.exit_code(manifest, require))


@app.command()
def cost(
    folder: Annotated[Path, typer.Argument(help="What an export made: dist/<target>/<model>.")],
    artifacts: Annotated[list[str] | None, typer.Option("--artifact", help="Only these files; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Count one inference of each artifact on the emulated core: instructions, modelled cycles, the hottest code."""
    from edge import costing
    from edge.progress import Reporter
    from edge.report import terminal

    manifest, counted = costing.count(folder, _names(artifacts or []), Reporter(_console(stderr=True)))
    if as_json:
        _print_json(costing.figures(manifest, counted))
        return
    console = _console()
    for table in terminal.cost_tables(manifest, counted):
        console.print(table)
    page = f"{os.path.relpath(folder)}/report.html"
    console.print(page, highlight=False, markup=False, soft_wrap=True)


@app.command()
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
    """Export, and compare with the peers on the same network and core: ONNX Runtime, ncnn, MNN, XNNPACK."""
    from edge import targets
    from edge.bench import bench as run
    from edge.bench import pages, table
    from edge.formats import FORMATS
    from edge.progress import Reporter
    from edge.records import to_json
    from edge.request import Request

    request = Request(
        model,
        targets.load(target),
        _names(formats or []),
        _names(precisions or []),
        checkpoint=checkpoint,
        calibration=calibration,
        out=out,
    )
    found = run.bench(request, Reporter(_console(stderr=True)))
    written = [pages.save(found, request.folder)]
    if page:
        written.append(pages.write(found, page, pages.docs_name(found)))
    if as_json:
        _print_json([to_json(row) for row in found.rows])
    else:
        console = _console()
        console.print(table.table(found))
        for file in written:
            console.print(os.path.relpath(file), highlight=False, markup=False, soft_wrap=True)
    if any(row.status == "failed" for row in found.rows if row.format in FORMATS):
        raise typer.Exit(ExitCode.PARITY)


@app.command()
def models(as_json: Json = False) -> None:
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
        for entry in entries()
    ]
    if as_json:
        _print_json(rows)
        return
    columns = ("name", "params", "params_folded", "macs")
    _print_table(
        "Networks",
        ("name", "parameters", "folded", "MACs", "input"),
        [
            (*(f"{row[c]:,}" if c != "name" else str(row[c]) for c in columns), "×".join(map(str, entry.input_shape)))
            for row, entry in zip(rows, entries(), strict=True)
        ],
    )


@app.command(name="targets")
def list_targets(as_json: Json = False) -> None:
    """List the devices there are profiles for."""
    from edge import targets

    profiles = [targets.load(name) for name in targets.names()]
    if as_json:
        _print_json([profile.model_dump(mode="json", exclude_none=True) for profile in profiles])
        return
    _print_table(
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


@app.command(name="formats")
def list_formats(as_json: Json = False) -> None:
    """List the artifact families, their precisions and what they mean."""
    from edge.formats import FORMATS

    if as_json:
        rows = [
            {
                "name": format.name,
                "title": format.title,
                "runs_with": format.runs_with,
                "files": format.suffixes,
                "precisions": format.precisions,
                "converters": list(format.converters),
            }
            for format in FORMATS.values()
        ]
        _print_json(rows)
        return
    _print_table(
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


class Interrupted(BaseException):
    """The user or the system asked the command to stop. Not an ``Exception``: no stage may take it for a failure."""


def _interrupt(*_: Any) -> NoReturn:
    raise Interrupted


def main() -> None:
    """Run the command; an error of ours is one message and its exit code."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")  # torch.export's, about itself
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, _interrupt)
    try:
        app()
    except EdgeError as error:
        from rich.text import Text

        _console(stderr=True).print(Text.assemble(("error", "bold red"), f"  {error}"), highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except Interrupted:
        print("interrupted; what was there before is untouched", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)
