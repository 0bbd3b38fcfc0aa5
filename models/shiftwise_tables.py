"""The index tables of the published shift-wise networks: which channels pass, and where each filter's result goes.

The authors draw them in every module's constructor from fixed seeds of two generators, and no checkpoint holds them.
Here they are data, ``shiftwise_tables.json``, so that no version of a generator can change a network.

The file has one entry for each "channels kernel": the ghosts, and in each table, for each group, a string with one
digit (0-9, a-z) for each filter of each rep channel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SIDE = 3
"""Of a filter."""
GROUPS = 4
"""How often each filter's result is added along the rows, and how often along the columns."""
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
FILE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of one shift-wise operator.

    A *place* p from 0 to n - 1 stands for the p-th piece of ``SIDE`` taps of a strip that begins ``kernel // 2`` before
    the output: the shift of the papers' formulas is ``kernel // 2 - SIDE * p - (SIDE - 1)``.

    Attributes:
        channels: in and out.
        kernel: K, the reach of the strips.
        ghosts: the channels that pass, in ascending order.
        across, down: (groups, rep channels, n), the place of each filter along the rows and along the columns.
        identity: (groups, rep channels), the filters that are added where they are.
    """

    channels: int
    kernel: int
    ghosts: tuple[int, ...]
    across: Tensor
    down: Tensor
    identity: Tensor

    @property
    def filters(self) -> int:
        """N, of each rep channel."""
        return -(-self.kernel // SIDE)

    @property
    def rep(self) -> tuple[int, ...]:
        """The channels that are convolved, in ascending order."""
        return tuple(sorted(set(range(self.channels)) - set(self.ghosts)))


@cache
def _published() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def published(channels: int, kernel: int) -> Tables:
    """The tables of a stage of a published network.

    Raises:
        ValueError: no published network has such a stage.
    """
    if (entry := _published().get(f"{channels} {kernel}")) is None:
        known = ", ".join(_published())
        raise ValueError(f"no published tables for {channels} channels and kernel {kernel}; there are: {known}")
    ghosts = tuple(map(int, entry["ghosts"].split()))

    def table(name: str) -> Tensor:
        return torch.tensor([[DIGITS.index(digit) for digit in group] for group in entry[name]])

    across, down = (table(name).reshape(GROUPS, channels - len(ghosts), -1) for name in ("across", "down"))
    return Tables(channels, kernel, ghosts, across, down, table("identity"))
