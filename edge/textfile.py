"""Text files that are written in one step: who reads one, or interrupts the writing, finds the old text or the new."""

from __future__ import annotations

from pathlib import Path


def write(text: str, path: Path) -> None:
    """Write a text in UTF-8; an older file stays whole until the new one is.

    Args:
        text: the whole content.
        path: of the file; its folder exists.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
