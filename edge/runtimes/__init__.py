"""One file a runtime: how a saved artifact is run.

A runtime is a module with two functions:

``title() -> str``
    what runs, with its version, for people.
``load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer``
    reads the file from disk and returns a callable on dicts of arrays by port name (batch 1, in the artifact's own
    layout).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Infer = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
