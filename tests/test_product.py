"""The matrix product and the memory: weights are asked for before they are needed, and gone through once."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kernel_rig import AVX2, GATE, error, run

from edge.kernels import gemm, product
from edge.kernels.pointwise import Pointwise
from edge.kernels.pointwise_problem import PointwiseProblem, PointwiseTile
from edge.kernels.product import LINE, Stretch

TEMPLATE = Pointwise()
PROBLEM = PointwiseProblem(23, 19, 37, True, "gelu", "after", partial=6)
TILE = PointwiseTile(rows=4, columns=16, lanes=8, unroll=4, order="weights")
LARGE = replace(AVX2, l2_bytes=64 * 1024 * 1024)
SMALL = replace(AVX2, l2_bytes=64)
"""Cores whose cache holds any weights, and none."""


def script(core: Any, tile: PointwiseTile = TILE) -> str:
    return str(TEMPLATE.kernel(PROBLEM, tile, core).script())


@pytest.mark.parametrize("prefetches", [False, True])
@pytest.mark.parametrize("core", [LARGE, SMALL], ids=["the cache holds the weights", "it does not"])
@pytest.mark.parametrize("order", ["weights", "rows"])
def test_whatever_is_done_for_the_memory_the_result_is_the_formulas(core: Any, prefetches: bool, order: str) -> None:
    random = np.random.default_rng(0)
    shapes = ((23, 6), (23, 19), (23, 37), (37, 19), (37,))
    arrays = [random.standard_normal(shape) for shape in shapes]
    core, tile = replace(core, software_prefetch=prefetches), replace(TILE, order=order)
    expected = TEMPLATE.reference(PROBLEM, *arrays)
    assert error(run(TEMPLATE, PROBLEM, tile, core, arrays[:3], arrays[3:]), expected) < GATE


def test_weights_are_asked_for_where_the_core_profits_and_panels_are_gone_through_again_and_again() -> None:
    assert "prefetch" not in script(replace(LARGE, software_prefetch=False))
    assert "prefetch" in script(replace(LARGE, software_prefetch=True))
    assert "prefetch" not in script(replace(LARGE, software_prefetch=True), replace(TILE, order="rows"))


def test_more_weights_than_the_cache_holds_are_gone_through_once() -> None:
    """Of the 32 columns in two panels, the 20 rows that fill tiles and the 3 that do not; the last 5 are one panel."""
    assert script(LARGE).count("T.parallel") == 2 + 1
    assert script(SMALL).count("T.parallel") == 1 + 1


@pytest.mark.parametrize("region", [r for r in gemm.regions(23, 64, TILE) if r.down > 1], ids=lambda r: r.name)
def test_the_tiles_of_a_panel_ask_for_all_of_the_next_and_little_else(region: gemm.Region) -> None:
    problem = SimpleNamespace(reduction=19)
    steps = [Stretch(0, 4, _nothing), Stretch(4, 2, _nothing), Stretch(6, 12, _nothing), Stretch(18, 1, _nothing)]
    indices = type("Indices", (), {"__getitem__": lambda self, index: index[0], "shape": (1,)})()
    asked = [
        element
        for number, stretch in enumerate(steps)
        for tile in range(region.down)
        for step in range(-(-stretch.length // 4))
        for element in product._next_panel(indices, problem, region, steps, number, 4, together=True)(
            (_loop(0, 2), _loop(tile, region.down), _loop(0, 1), _loop(step, -(-stretch.length // 4)))
        )
    ]
    panel = region.tile_columns * problem.reduction
    first = region.column * problem.reduction + panel
    lines = {element // LINE for element in asked}
    assert lines >= {element // LINE for element in range(first, first + panel - LINE)}
    assert max(lines) <= (first + panel) // LINE + len(steps)


def _nothing(*_: Any) -> Any:
    raise AssertionError("nothing is read here")


def _loop(value: int, extent: int) -> Any:
    return SimpleNamespace(loop_var=value, extent=extent)
