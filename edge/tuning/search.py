"""Which choices of a template's space to measure, and in which order: all of them, or those that evolve.

A search knows no kernels and no devices. It proposes members of a space by their index, in batches, and is told what
they cost; the same space, seed and costs give the same proposals, whoever measures them and however many at once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

PARENTS = 4
"""The best so far, whose neighbours are tried next."""
FIRST_GENERATION = 12
"""The default choice, hints and others at random, before there are parents; no more than half of the budget."""
LEAPS = 8
"""One proposal of so many is a random member of the space: neighbours alone end in the nearest valley."""

Fields = Mapping[str, Any]


class Search(Protocol):
    """Proposes, and is told what the proposals cost."""

    def propose(self, most: int) -> list[int]:
        """The next members to measure, at most so many, none twice; empty at the end."""

    def learn(self, index: int, cost: float | None) -> None:
        """What a member costs; None if it could not be measured."""


def search(space: Sequence[Fields], default: int, budget: int, seed: int, hints: Sequence[int] = ()) -> Search:
    """An exhaustive search where the budget is enough for the whole space, else an evolutionary one.

    Args:
        space: the members' fields, by name; every member has the same.
        default: index of the member to begin with.
        budget: how many are measured at most.
        seed: decides the evolutionary search's random numbers.
        hints: indexes of members that are likely to be good, for an evolutionary search to try first.
    """
    if len(space) <= budget:
        return Exhaustive(len(space), default)
    return Evolutionary(space, default, budget, seed, hints)


class Exhaustive:
    """Every member: the default, then the others in order."""

    def __init__(self, size: int, default: int) -> None:
        self._waiting = [default, *(index for index in range(size) if index != default)]

    def propose(self, most: int) -> list[int]:
        """See ``Search``."""
        batch, self._waiting = self._waiting[:most], self._waiting[most:]
        return batch

    def learn(self, index: int, cost: float | None) -> None:
        """Nothing is learned."""


class Evolutionary:
    """Members near the best so far: those that differ from one of them in a single field, by its next value first.

    It begins with the default, the hints and a few at random, and ends when the budget is spent.
    """

    def __init__(
        self, space: Sequence[Fields], default: int, budget: int, seed: int, hints: Sequence[int] = ()
    ) -> None:
        self._space = space
        self._index = {_key(member): index for index, member in enumerate(space)}
        self._values = {name: sorted({member[name] for member in space}, key=_order) for name in space[0]}
        self._random = random.Random(seed)
        self._costs: dict[int, float] = {}
        self._proposed: set[int] = set()
        self._budget = min(budget, len(space))
        self._known = tuple(dict.fromkeys((default, *hints)))

    def propose(self, most: int) -> list[int]:
        """See ``Search``."""
        batch: list[int] = []
        most = min(most, self._budget - len(self._proposed))
        if not self._proposed:
            first = min(FIRST_GENERATION, max(1, self._budget // 2))
            batch += self._known[: min(most, self._budget)]
            most = min(most, max(first, len(batch)))
        neighbours = [index for parent in self._parents() for index in self._neighbours(parent)]
        while len(batch) < most:
            fresh = [index for index in dict.fromkeys(neighbours) if index not in self._proposed and index not in batch]
            leap = not fresh or len(batch) % LEAPS == LEAPS - 1
            batch.append(self._leap(batch) if leap else fresh[0])
        self._proposed.update(batch)
        return batch

    def learn(self, index: int, cost: float | None) -> None:
        """See ``Search``."""
        if cost is not None:
            self._costs[index] = cost

    def _parents(self) -> list[int]:
        return sorted(self._costs, key=lambda index: (self._costs[index], index))[:PARENTS]

    def _neighbours(self, parent: int) -> list[int]:
        """Members that differ from a parent in one field, the nearest values first, fields in turn."""
        member = self._space[parent]
        ranked: list[tuple[int, int, int]] = []
        for rank, (name, values) in enumerate(self._values.items()):
            place = values.index(member[name])
            for other, value in enumerate(values):
                index = self._index.get(_key({**member, name: value}))
                if index is not None and index != parent:
                    ranked.append((abs(other - place), rank, index))
        return [index for _, _, index in sorted(ranked)]

    def _leap(self, batch: list[int]) -> int:
        left = [index for index in range(len(self._space)) if index not in self._proposed and index not in batch]
        return self._random.choice(left)


def _key(member: Fields) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in member.values())


def _order(value: Any) -> tuple[str, Any]:
    return (type(value).__name__, value)
