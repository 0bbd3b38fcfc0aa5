"""The shift-wise operator: one kernel computes its formulas, with the tables of the published networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kernel_rig import AVX2, GATE, NEON, error, run, sample
from shiftwise_tables import tables

from edge import targets
from edge.kernels.large_kernel import LargeKernel, LargeKernelTemplate
from edge.kernels.lines import LineTile
from edge.kernels.shiftwise import Shiftwise, ShiftwiseTemplate
from edge.kernels.template import Array
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

TEMPLATE = ShiftwiseTemplate()

Case = tuple[Shiftwise, list[Array], list[Array]]


def case(height: int, width: int, channels: int, kernel: int, pruned: float = 0.0) -> Case:
    """A problem, its activations and its plain weights in float64."""
    random = np.random.default_rng(0)
    ghosts, rep, offsets, identity = tables(channels, kernel)
    filters = random.standard_normal((len(offsets), 3, 3))
    filters[random.random(len(offsets)) < pruned] = 0
    branches = random.uniform(0.5, 1.5, (3, rep))
    after = [random.uniform(0.5, 1.5, channels), random.standard_normal(channels)]
    problem = Shiftwise.of((height, width, channels), ghosts, filters, offsets)
    return (
        problem,
        [random.standard_normal((1, height, width, channels))],
        [filters, offsets, identity, branches, *after],
    )


CASES = {
    "K 13, fewer lines than a tile": case(9, 11, 10, 13),
    "K 51, beyond the image": case(14, 7, 12, 51),
    "K 47, most filters pruned": case(7, 8, 12, 47, pruned=0.8),
    "K 49, one row": case(1, 9, 8, 49),
}


@pytest.mark.parametrize(
    ("stage", "ghosts", "offsets", "identity"),
    [
        ((80, 51), (4, 8, 9, 23, 29, 31, 37, 43), (14, -13, 5, 5, -19, -19, 11, 17), (0, 12, 4, 13)),
        ((160, 49), (4, 7, 8, 13, 20, 23, 24, 28), (13, 7, 13, -5, -11, 19, -8, 19), (10, 11, 14, 15)),
        ((320, 47), (11, 12, 19, 20, 22, 26, 29, 30), (12, 21, -24, 18, 0, 9, -6, -9), (3, 4, 3, 2)),
        ((640, 13), (5, 9, 11, 13, 31, 33, 34, 35), (1, -2, -8, -8, -8, -5, -2, -5), (0, 3, 1, 0)),
    ],
)
def test_the_tables_are_the_published_networks(
    stage: tuple[int, int], ghosts: tuple[int, ...], offsets: tuple[int, ...], identity: tuple[int, ...]
) -> None:
    drawn_ghosts, _, drawn_offsets, drawn_identity = tables(*stage)
    assert drawn_ghosts[:8] == ghosts
    assert tuple(drawn_offsets[0]) == offsets
    assert tuple(drawn_identity[0]) == identity


@pytest.mark.parametrize(("kernel", "reach"), [(51, (-25, 25)), (49, (-24, 26)), (47, (-23, 24)), (13, (-6, 8))])
def test_strips_reach_as_far_as_the_shifts_and_no_farther(kernel: int, reach: tuple[int, int]) -> None:
    problem, _, (filters, offsets, *_) = case(4, 4, 8, kernel)
    assert problem.across == problem.down == reach
    far = np.any(np.abs(offsets) > 5, axis=1)
    pruned = Shiftwise.of((4, 4, 8), problem.ghosts, np.where(far[:, None, None], 0, filters), offsets)
    assert -7 <= pruned.across[0] <= pruned.across[1] <= 5
    none = Shiftwise.of((4, 4, 8), problem.ghosts, np.zeros_like(filters), offsets)
    assert none.across == none.down == (-1, 1)


@pytest.mark.parametrize("name", CASES)
def test_every_tile_computes_the_formulas(name: str) -> None:
    problem, activations, weights = CASES[name]
    expected = TEMPLATE.reference(problem, *activations, *weights)
    choices = {TEMPLATE.default(problem, NEON): NEON, TEMPLATE.default(problem, AVX2): AVX2}
    choices |= dict.fromkeys(sample(TEMPLATE.space(problem, NEON), 2), NEON)
    for choice, core in choices.items():
        assert error(run(TEMPLATE, problem, choice, core, activations, weights), expected) < GATE


@pytest.mark.parametrize("fault", ["offset", "identity", "shortcut", "ghost"])
def test_a_kernel_that_computes_something_else_is_caught(fault: str) -> None:
    problem, activations, weights = CASES["K 13, fewer lines than a tile"]
    expected = TEMPLATE.reference(problem, *activations, *weights)
    filters, offsets, identity, *others = weights
    if fault == "offset":
        offsets = offsets.copy()
        offsets[0, 0] = offsets[1, 0]
    if fault == "identity":
        identity = (identity + 1) % (len(filters) // problem.rep)
    if fault == "shortcut":  # counted twice, by a filter that passes its input
        filters = filters.copy()
        filters[identity[0, 0], 1, 1] += 1
    if fault == "ghost":
        problem = replace(problem, ghosts=(*problem.ghosts[:-1], problem.ghosts[-1] - 1))
    wrong = run(
        TEMPLATE, problem, TEMPLATE.default(problem, NEON), NEON, activations, [filters, offsets, identity, *others]
    )
    assert error(wrong, expected) > GATE


@pytest.mark.parametrize("name", CASES)
def test_multiply_adds_are_those_of_the_merged_cross(name: str) -> None:
    """With ones everywhere, the results are the numbers of taps that meet the image."""
    problem, _, _ = CASES[name]
    large = LargeKernelTemplate()

    def taps(kernel: tuple[int, int], above: int, left: int) -> int:
        below, right = kernel[0] - 1 - above, kernel[1] - 1 - left
        strip = LargeKernel(problem.height, problem.width, 1, kernel, (above, left, below, right))
        ones = np.ones((1, problem.height, problem.width, 1))
        return int(large.reference(strip, ones, np.ones((*kernel, 1)), np.zeros(1)).sum())

    (left, right), (above, below) = problem.across, problem.down
    cross = taps((3, right - left + 1), 1, -left) + taps((below - above + 1, 3), -above, 1) - taps((3, 3), 1, 1)
    assert problem.macs == problem.rep * cross + len(problem.ghosts) * problem.height * problem.width
    weights = 3 * (right - left + 1 + below - above + 1) * problem.rep + 2 * problem.channels
    assert problem.bytes == 4 * (2 * problem.height * problem.width * problem.channels + weights)


def test_problems_and_choices_are_plain() -> None:
    for problem, _, _ in CASES.values():
        space, default = TEMPLATE.space(problem, NEON), TEMPLATE.default(problem, NEON)
        assert default in space
        assert len(set(space)) == len(space)
        assert LineTile.from_json(default.to_json()) == default
        assert Shiftwise.from_json(problem.to_json()) == problem
    assert len({problem.key for problem, _, _ in CASES.values()}) == len(CASES)


@pytest.mark.slow  # unpacks the tools for Arm where they are not
def test_one_kernel_is_faster_than_two_strips_and_far_faster_than_the_dense_form(tmp_path: Path) -> None:
    """On the modelled Cortex-A72, for some channels of the first stage; the dense form is given its peak."""
    target = targets.load("cortex-a72")

    def cycles(template: ShiftwiseTemplate | LargeKernelTemplate, problem: Shiftwise | LargeKernel) -> int:
        kernel = template.kernel(problem, template.default(problem, NEON), NEON)
        compiled = compile_kernel(kernel, target, tmp_path / "kernel.o")
        return emulated.measure(compiled, target).modelled_cycles

    whole = cycles(TEMPLATE, Shiftwise(56, 56, 10, (2, 7), (-25, 25), (-25, 25)))
    across = cycles(LargeKernelTemplate(), LargeKernel(56, 56, 8, (3, 51), (1, 25, 1, 25)))
    down = cycles(LargeKernelTemplate(), LargeKernel(56, 56, 8, (51, 3), (25, 1, 25, 1)))
    dense = LargeKernel(56, 56, 8, (51, 51), (25, 25, 25, 25)).macs / target.core.peak_flop_per_cycle["fp32"] * 2
    assert whole < across + down
    assert whole < dense / 6
