"""What commands print: tables for people, JSON for tools."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

    from edge.progress import Reporter

T = TypeVar("T")


def console(stderr: bool = False) -> Console:
    """The terminal."""
    from rich.console import Console

    # Where nobody watches (a log, CI) the width is that of the tables.
    width = None if sys.stdout.isatty() else 100
    return Console(stderr=stderr, width=width)


def reporter() -> Reporter:
    """Progress, on stderr: stdout is the result's."""
    from edge.progress import Reporter

    return Reporter(console(stderr=True))


def advancing(items: Sequence[T], what: str) -> Iterable[T]:
    """The items one by one, with a bar on stderr where somebody watches."""
    from rich.progress import track

    terminal = console(stderr=True)
    return track(items, what, console=terminal, transient=True, disable=not terminal.is_terminal)


def json_text(data: Any) -> None:
    """A result for other tools."""
    print(json.dumps(data, indent=1, ensure_ascii=False))


def table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table of words."""
    from rich import box
    from rich.table import Table

    printed = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        printed.add_row(*row)
    console().print(printed)


def path(file: Path, *before: str) -> None:
    """Where something lies, as people type it, after other lines."""
    console().print("\n".join((*before, os.path.relpath(file))), highlight=False, markup=False, soft_wrap=True)
