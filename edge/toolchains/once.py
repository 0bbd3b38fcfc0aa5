"""Files that are made when they are first needed, and whose names tell all that decides their content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge.toolchains.environments import exclusive


def made_once(file: Path, make: Callable[[Path], None]) -> bool:
    """Make a file unless it is there, in one step, whoever else wants it at the same time.

    Args:
        file: its name changes with whatever decides its content.
        make: writes it to the path that it gets.

    Returns:
        Whether it was made now.
    """
    if file.is_file():
        return False
    with exclusive(file.parent / ".lock"):
        if file.is_file():
            return False
        partial = file.with_suffix(".partial")
        make(partial)
        partial.rename(file)
    return True
