"""Searches: all of a small space, the good part of a large one, the same way every time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from edge.tuning.search import Evolutionary, Exhaustive, Search, search

SPACE = [
    {"rows": rows, "columns": columns, "unroll": unroll, "order": order}
    for rows, columns, unroll, order in product(range(1, 17), range(4, 64, 4), (1, 2, 4), ("rows", "weights"))
]
BEST = {"rows": 5, "columns": 16, "unroll": 4, "order": "weights"}


def bowl(member: dict[str, Any]) -> float:
    """A cost with one valley, at ``BEST``."""
    distance = abs(member["rows"] - 5) / 16 + abs(member["columns"] - 16) / 60 + abs(member["unroll"] - 4) / 8
    return 1 + distance + 0.1 * (member["order"] == "rows")


def run(found: Search, cost: Callable[[int], float | None], batch: int = 16) -> list[int]:
    """Members in the order they were proposed."""
    order: list[int] = []
    while proposed := found.propose(batch):
        assert len(proposed) <= batch
        order += proposed
        for index in proposed:
            found.learn(index, cost(index))
    assert len(order) == len(set(order)), "none is measured twice"
    return order


def test_a_space_within_the_budget_is_searched_whole_and_begins_with_the_default() -> None:
    small = SPACE[:40]
    found = search(small, default=7, budget=40, seed=0)
    assert isinstance(found, Exhaustive)
    order = run(found, lambda index: bowl(small[index]))
    assert order[0] == 7
    assert sorted(order) == list(range(40))


def test_a_large_space_gives_its_best_within_a_tenth_of_the_trials() -> None:
    for seed in range(5):
        found = search(SPACE, default=0, budget=len(SPACE) // 10, seed=seed)
        assert isinstance(found, Evolutionary)
        order = run(found, lambda index: bowl(SPACE[index]))
        assert len(order) == len(SPACE) // 10
        assert order[0] == 0
        best = min(bowl(SPACE[index]) for index in order)
        assert best <= 1.02 * bowl(BEST)


def test_random_trials_alone_would_not_do_that() -> None:
    """The twin: a search that learns nothing misses the best."""
    misses = 0
    for seed in range(5):
        blind = search(SPACE, default=0, budget=len(SPACE) // 10, seed=seed)
        order = run(blind, lambda _: None)
        misses += min(bowl(SPACE[index]) for index in order) > 1.02 * bowl(BEST)
    assert misses >= 3


def test_the_seed_decides_the_order_and_nothing_else_does() -> None:
    def order(seed: int) -> list[int]:
        return run(search(SPACE, 3, 60, seed), lambda index: bowl(SPACE[index]))

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_members_that_cannot_be_measured_cost_their_trial_only() -> None:
    """Half of the space faults, the best among them: the best of the rest is found."""

    def cost(index: int) -> float | None:
        return None if SPACE[index]["order"] == "weights" else bowl(SPACE[index])

    order = run(search(SPACE, 0, 150, 0), cost)
    costs = [known for index in order if (known := cost(index)) is not None]
    assert min(costs) <= 1.05 * (bowl(BEST) + 0.1)


def test_a_space_with_holes_has_neighbours_across_them() -> None:
    holes = [member for member in SPACE if member["rows"] % 3 != 0]
    order = run(search(holes, 0, 150, 0), lambda index: bowl(holes[index]))
    assert min(bowl(holes[index]) for index in order) <= 1.05 * bowl(BEST)


def test_a_hint_is_tried_after_the_default_and_a_small_budget_goes_on_from_it() -> None:
    near = SPACE.index({**BEST, "columns": 20})
    order = run(search(SPACE, 0, 8, 0, hints=[near]), lambda index: bowl(SPACE[index]))
    assert order[:2] == [0, near]
    assert len(order) == 8
    assert SPACE.index(BEST) in order, "a neighbour of the hint, which half of the budget is left for"
    assert SPACE.index(BEST) not in run(search(SPACE, 0, 8, 0), lambda index: bowl(SPACE[index]))


def test_a_hint_that_is_the_default_is_tried_once() -> None:
    order = run(search(SPACE, 3, 8, 0, hints=[3]), lambda index: bowl(SPACE[index]))
    assert order[0] == 3
    assert len(order) == 8
