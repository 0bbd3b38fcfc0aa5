"""The shift-wise operator: one kernel computes both strips of its cross, and leaves the ghosts where they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kernel_rig import AVX2, GATE, NEON, error, run, sample

from edge import targets
from edge.kernels.large_kernel import LargeKernel, LargeKernelTemplate
from edge.kernels.lines import LineTile
from edge.kernels.shiftwise import Shiftwise, ShiftwiseTemplate
from edge.kernels.template import Array
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

TEMPLATE = ShiftwiseTemplate()

Case = tuple[Shiftwise, list[Array], list[Array]]


def case(height: int, width: int, channels: int, across: tuple[int, int], down: tuple[int, int], ghosts: int) -> Case:
    """A problem, its activations and its plain weights in float64."""
    random = np.random.default_rng(0)
    strips = [random.standard_normal((3, across[1] - across[0] + 1, channels))]
    strips.append(random.standard_normal((down[1] - down[0] + 1, 3, channels)))
    chosen = np.sort(random.choice(channels, ghosts, replace=False))
    strips[0][..., chosen], strips[1][..., chosen] = 0, 0
    strips[0][1, -across[0], chosen] = random.uniform(0.5, 1.5, ghosts)
    problem, *weights = Shiftwise.of((height, width, channels), strips[0], strips[1], across[0], down[0])
    assert (problem.across, problem.down, problem.ghosts) == (across, down, tuple(chosen))
    image = random.standard_normal((1, height, width, channels))
    return problem, [image], [*weights, random.standard_normal(channels)]


CASES = {
    "K 13, fewer lines than a tile": case(9, 11, 10, (-6, 8), (-6, 8), 2),
    "K 51, beyond the image": case(14, 7, 12, (-25, 25), (-25, 25), 3),
    "two strips that end elsewhere": case(7, 8, 12, (-4, 7), (-1, 24), 3),
    "K 49, one row, no ghosts": case(1, 9, 8, (-24, 26), (-24, 26), 0),
}


def test_strips_are_cut_to_what_is_not_zero() -> None:
    """A channel with the middle tap of either strip alone is a ghost only if it is the horizontal one's."""
    across, down = np.zeros((3, 51, 5)), np.zeros((49, 3, 5))
    across[0, 7, 1] = down[30, 2, 1] = across[1, 25, 0] = down[24, 1, 3] = 2
    problem, *left = Shiftwise.of((4, 4, 5), across, down, -25, -24)
    assert (problem.across, problem.down, problem.ghosts) == ((-18, 1), (-1, 6), (0, 2, 4))
    assert [strip.shape for strip in left] == [(3, 20, 5), (8, 3, 5)]
    assert left[0][0, 0, 1] == left[1][7, 2, 1] == left[0][1, 18, 0] == left[1][1, 1, 3] == 2
    nothing, *left = Shiftwise.of((4, 4, 5), 0 * across[:, 25:26], 0 * down, 0, -24)
    assert nothing.across == nothing.down == (-1, 1)
    assert [strip.shape for strip in left] == [(3, 3, 5), (3, 3, 5)]


@pytest.mark.parametrize("name", CASES)
def test_every_tile_computes_the_formulas(name: str) -> None:
    problem, activations, weights = CASES[name]
    expected = TEMPLATE.reference(problem, *activations, *weights)
    choices = {TEMPLATE.default(problem, NEON): NEON, TEMPLATE.default(problem, AVX2): AVX2}
    choices |= dict.fromkeys(sample(TEMPLATE.space(problem, NEON), 2), NEON)
    for choice, core in choices.items():
        assert error(run(TEMPLATE, problem, choice, core, activations, weights), expected) < GATE


@pytest.mark.parametrize("fault", ["tap", "middle", "ghost", "bias"])
def test_a_kernel_that_computes_something_else_is_caught(fault: str) -> None:
    problem, activations, weights = CASES["K 13, fewer lines than a tile"]
    expected = TEMPLATE.reference(problem, *activations, *weights)
    across, down, bias = (array.copy() for array in weights)
    if fault == "tap":
        down[0, 0, 0] = 0
    if fault == "middle":
        across[1, 6] += 1
    if fault == "ghost":
        problem = replace(problem, ghosts=(problem.ghosts[0] - 1, problem.ghosts[1]))
    if fault == "bias":
        bias[[0, 1]] = bias[[1, 0]]
    wrong = run(TEMPLATE, problem, TEMPLATE.default(problem, NEON), NEON, activations, [across, down, bias])
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
    """On the modelled Cortex-A72, for some channels of the first stage; the dense form is given its peak.

    The multiplications are the same, and bind: one kernel saves the addition of the strips, and on a real core memory.
    """
    target = targets.load("cortex-a72")

    def cycles(template: ShiftwiseTemplate | LargeKernelTemplate, problem: Shiftwise | LargeKernel) -> int:
        kernel = template.kernel(problem, template.default(problem, NEON), NEON)
        compiled = compile_kernel(kernel, target, tmp_path / "kernel.o")
        return emulated.measure(compiled, target).modelled_cycles

    whole = cycles(TEMPLATE, Shiftwise(56, 56, 8, (), (-25, 25), (-25, 25)))
    across = cycles(LargeKernelTemplate(), LargeKernel(56, 56, 8, (3, 51), (1, 25, 1, 25)))
    down = cycles(LargeKernelTemplate(), LargeKernel(56, 56, 8, (51, 3), (25, 1, 25, 1), shortcut="before"))
    dense = LargeKernel(56, 56, 8, (51, 51), (25, 25, 25, 25)).macs / target.core.peak_flop_per_cycle["fp32"] * 2
    assert whole < across + down
    assert whole < dense / 6
