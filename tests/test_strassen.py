"""Pointwise convolutions by Strassen's algorithm: the formula's results with seven products of quarters, not eight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kernel_rig import AVX2, GATE, NEON, error, parallel_loops, run
from test_pointwise import arrays

from edge import targets
from edge.kernels import strassen
from edge.kernels.core import Core
from edge.kernels.pointwise import Pointwise
from edge.kernels.pointwise_problem import PointwiseProblem, PointwiseTile
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

TEMPLATE = Pointwise()
CORES = {"NEON": replace(NEON, strassen=True), "AVX2": AVX2}
SMALL = {name: replace(core, l2_bytes=64 * 1024) for name, core in CORES.items()}
"""Cores that go through the rows in strips."""

AWKWARD = (
    PointwiseProblem(49, 52, 50, True, "relu", "after", 10),  # the rows' halves share one; halves fill no registers
    PointwiseProblem(51, 50, 54, False, "gelu", "before"),
    PointwiseProblem(96, 64, 96, True),
    PointwiseProblem(54, 24, 52, True, window=2, height=12, width=19),  # a column that no window covers
    PointwiseProblem(48, 6, 48, window=3, height=18, width=24),  # windows whose halves begin within a line
)
UNSUITABLE = (
    PointwiseProblem(64, 65, 64),
    PointwiseProblem(64, 64, 65),
    PointwiseProblem(16, 64, 64),
    PointwiseProblem(64, 4, 64, window=4, height=32, width=32, layout="NCHW"),
)


def choices(problem: PointwiseProblem, core: Core) -> list[PointwiseTile]:
    """The first and the last choice with seven products."""
    found = [tile for tile in TEMPLATE.space(problem, core) if tile.products == strassen.PRODUCTS]
    return [found[0], found[-1]]


@pytest.mark.parametrize("problem", AWKWARD, ids=lambda problem: problem.key)
@pytest.mark.parametrize("cores", (CORES, SMALL), ids=("in one strip", "in strips"))
@pytest.mark.parametrize("name", CORES)
def test_seven_products_compute_the_formula(problem: PointwiseProblem, cores: dict[str, Core], name: str) -> None:
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    for choice in choices(problem, cores[name]):
        assert error(run(TEMPLATE, problem, choice, cores[name], activations, weights), expected) < GATE


def test_a_kernel_with_one_wrong_weight_is_caught() -> None:
    problem = AWKWARD[0]
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    weights[0][-1, -1] += 0.01
    for choice in choices(problem, AVX2):
        assert error(run(TEMPLATE, problem, choice, AVX2, activations, weights), expected) > GATE


@pytest.mark.parametrize("problem", UNSUITABLE, ids=lambda problem: problem.key)
def test_what_has_no_halves_or_is_small_has_the_formula_only(problem: PointwiseProblem) -> None:
    assert {tile.products for tile in TEMPLATE.space(problem, AVX2)} == {8}


def test_only_a_profile_that_asks_for_it_gets_it() -> None:
    assert {tile.products for tile in TEMPLATE.space(AWKWARD[2], replace(AVX2, strassen=False))} == {8}


@pytest.mark.parametrize("core", (CORES["NEON"], SMALL["NEON"]), ids=("in one strip", "in strips"))
def test_threads_share_the_work_and_no_parallel_loop_is_inside_of_another(core: Core) -> None:
    """The rows are one strip, whose rows and products are shared; or there are several strips."""
    for choice in choices(AWKWARD[2], core):
        parallel = parallel_loops(TEMPLATE.kernel(AWKWARD[2], choice, core))
        assert parallel and min(int(loop.extent) for loop in parallel) >= 2


@pytest.mark.slow  # unpacks the tools for Arm where they are not
def test_a_large_product_is_faster_than_the_formula_at_the_peak_of_a_cortex_a72(tmp_path: Path) -> None:
    target, core = targets.load("cortex-a72"), CORES["NEON"]
    problem = PointwiseProblem(196, 512, 1024, True, "relu", partial=128)  # FasterNet-S
    default = TEMPLATE.default(problem, core)
    assert default.products == strassen.PRODUCTS
    compiled = compile_kernel(TEMPLATE.kernel(problem, default, core), target, tmp_path / "kernel.o")
    assert emulated.measure(compiled, target).share_of_floor(problem.macs, target) > 1.05
