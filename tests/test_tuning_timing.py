"""What the host's runner times: kernels whose weights nobody has just read, as in a network."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import tvm

from edge.tuning import timing
from edge.tuning.compiled import SYMBOL

COPIES, WEIGHTS = 5, 8


def test_no_kernel_is_timed_with_weights_that_another_has_just_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels take the same copies: each call has the next, whoever's turn it is."""
    read: list[int] = []

    def kernel(_input: Any, weights: Any, _result: Any) -> None:
        read.append(weights.copy)

    def tensors(_shape: tuple[int, ...], _place: int, copies: int) -> list[Any]:
        return [SimpleNamespace(copy=number) for number in range(copies)]

    monkeypatch.setattr(tvm.runtime, "load_module", lambda file: {SYMBOL: kernel})
    monkeypatch.setattr(timing, "WEIGHTS_BYTES", COPIES * WEIGHTS * 4)
    monkeypatch.setattr(timing, "_tensors", tensors)
    request = [{"file": name, "shapes": [[4, 2], [WEIGHTS], [4, 4]], "weights": [1]} for name in ("one", "other")]
    assert len(timing.time_kernels(request)) == len(request)
    assert read[:COPIES] == [*range(COPIES)]
    assert all((before + 1) % COPIES == after for before, after in pairwise(read))
