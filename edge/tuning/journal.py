"""What was measured, written as it is measured: an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path


class Journal:
    """Costs by key, on disk. A key has everything that decides the cost, so an entry is never wrong, only unused.

    A line that was cut off by the end of its process is left out when the file is read, and ended before the next.

    Args:
        file: made if it is missing; its folder too.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, float | str] = {}
        whole = True
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else ():
            whole = line.endswith("\n")
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = entry["cost"]
            except (ValueError, KeyError, TypeError):
                continue
        self._file = file.open("a", encoding="utf-8")
        if not whole:
            self._file.write("\n")

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> float | str:
        """The cost, or the reason why there is none."""
        return self._known[key]

    def write(self, key: str, cost: float | str) -> None:
        """Keep a cost, or the reason why there is none, on disk when this returns."""
        self._known[key] = cost
        self._file.write(json.dumps({"key": key, "cost": cost}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
