"""What a person sees while a run goes on: one line per lane on a terminal, one line per step in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text


class Reporter:
    """Shows steps as they happen on the given console (stderr, so that ``--json`` owns stdout)."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begin = time.monotonic()
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the lanes while the block runs."""
        with self._live:
            yield

    def note(self, text: str) -> None:
        """A line that stays."""
        elapsed = Text(f"{time.monotonic() - self._begin:6.1f} s  ", style="dim")
        self._console.print(elapsed + Text(text), highlight=False, soft_wrap=True)

    @contextmanager
    def lane(self, name: str) -> Iterator[Callable[[str], None]]:
        """A piece of work that may run beside others; the callable takes its steps."""
        task: TaskID = self._live.add_task(name, total=None)

        def step(text: str) -> None:
            self._live.update(task, description=f"{name}: {text}")
            if not self._console.is_terminal:
                self.note(f"{name}: {text}")

        try:
            yield step
        finally:
            self._live.remove_task(task)
