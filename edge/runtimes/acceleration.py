"""What LiteRT's GPU accelerator took and what it left to the CPU, from what the process printed.

The accelerator's log is the only place that names the operators. ``CompiledModel.is_fully_accelerated`` does not tell:
where the CPU is allowed to take the rest, it counts as an accelerator too, and LiteRT 2.3.0 answers True for a file of
which nothing runs on the GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WHOLE = "edge: the GPU accelerator took the whole file"
"""Printed by ``edge.runtimes.litert_gpu`` once LiteRT has compiled the file without leave to use the CPU."""

_ADAPTER = re.compile(r"Selected adapter: (.+)")
_LEFT = re.compile(r"not supported by GPU delegate:\n(?P<operators>(?:.+\n)+?)(?P<taken>No|\d+) operations will run")
_REST = re.compile(r"(\d+) operations will run on the CPU")


@dataclass(frozen=True)
class Acceleration:
    """Where the operators of a file ran.

    Attributes:
        adapter: the GPU that LiteRT chose, as it describes it; empty if it found none.
        taken: operators on the GPU; None when all are.
        left: operators on the CPU.
        obstacles: kinds of operators that it cannot take, with its reasons; their neighbours may stay on the CPU too.
    """

    adapter: str
    taken: int | None
    left: int
    obstacles: tuple[str, ...]

    @property
    def remainder(self) -> str:
        """What stayed on the CPU, in one line; empty when nothing did."""
        if self.taken is None:
            return ""
        return f"{self.left} of {self.taken + self.left} operators on the CPU: {'; '.join(self.obstacles)}"


def read(log: str) -> Acceleration:
    """Read what one process printed. What cannot be shown to have run on the GPU counts as left to the CPU."""
    adapters = _ADAPTER.findall(log)
    adapter = adapters[-1].strip() if adapters else ""
    if adapter and WHOLE in log:
        return Acceleration(adapter, None, 0, ())
    found, rest = _LEFT.search(log), _REST.search(log)
    if not found or not rest:
        return Acceleration(adapter, 0, 0, ("LiteRT does not say why",))
    # "RESHAPE: Tensor dimensions must be less than 5. <name of a tensor>": one line each, the reason may be missing.
    kinds = (line.strip().partition(". ")[0].rstrip(".: ") for line in found["operators"].splitlines())
    obstacles = tuple(dict.fromkeys(kinds))
    return Acceleration(adapter, 0 if found["taken"] == "No" else int(found["taken"]), int(rest[1]), obstacles)
