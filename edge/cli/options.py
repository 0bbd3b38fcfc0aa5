"""Options that several commands take, by the names that users type."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        help="Where to check: host, emulated, software-gpu, software-opencl, ssh://user@board, adb:<serial>.",
    ),
]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights: safetensors, or a torch file.")]
Formats = Annotated[list[str] | None, typer.Option(help="Families, or `all` (see `edge formats`).")]
Model = Annotated[str, typer.Argument(help="A network's name (see `edge models`), or your own program.pt2.")]
Out = Annotated[Path, typer.Option(help="The folder that gets <target>/<model>/.")]
Precisions = Annotated[list[str] | None, typer.Option(help="fp32, fp16, int8.")]
TargetName = Annotated[str, typer.Option("--target", help="The device (see `edge targets`).")]
Calibration = Annotated[Path | None, typer.Option(help="Folder of your own images for int8.")]
Folder = Annotated[Path, typer.Argument(help="What an export made: dist/<target>/<model>.")]
Require = Annotated[bool, typer.Option(help="Fail if a check had to be skipped.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes side by side.")]
Runner = Annotated[str, typer.Option(help="What measures: emulated, host, or rpc://host:port/key.")]
Budget = Annotated[int, typer.Option(min=1, help="Candidates of one kernel at most.")]

JOBS = min(2, os.cpu_count() or 1)


def names(values: list[str] | None) -> tuple[str, ...]:
    """Options that take lists: repeated, or one text with commas or spaces."""
    return tuple(name for value in values or [] for name in value.replace(",", " ").split())
