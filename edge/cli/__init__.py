"""The ``edge`` command; thin: it reads options, calls the pipeline, prints tables."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from edge.cli import artifacts, bench, lists, printing, tune
from edge.errors import EdgeError, ExitCode

app = typer.Typer(
    name="edge",
    help="Takes a PyTorch vision network to phones and boards, and proves what it ships.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "export": artifacts.export,
    "verify": artifacts.verify,
    "cost": artifacts.cost,
    "bench": bench.bench,
    "bench-ops": bench.bench_operators,
    "tune": tune.tune,
    "networks": lists.networks,
    "models": lists.list_models,
    "targets": lists.list_targets,
    "formats": lists.list_formats,
}
for name, command in COMMANDS.items():
    app.command(name=name)(command)

records = typer.Typer(help="Check or merge tuning records: targets/records/<target>.json.", no_args_is_help=True)
records.command()(tune.check)
records.command()(tune.merge)
records.command()(tune.port)
app.add_typer(records, name="records")


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

        printing.console(stderr=True).print(
            Text.assemble(("error", "bold red"), f"  {error}"), highlight=False, soft_wrap=True
        )
        sys.exit(error.exit_code)
    except Interrupted:
        print("interrupted; what was there before is untouched", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)
