"""Partial convolutions: right at every border for every tile, counted, and near the core's peak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_rig import CORES, GATE, NEON, error, run, sample

from edge import targets
from edge.kernels.convolution_problem import ConvolutionTile
from edge.kernels.core import Core
from edge.kernels.partial import Partial, PartialProblem
from edge.kernels.template import Array
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

TEMPLATE = Partial()

AWKWARD = (
    PartialProblem(5, 7, 9, 3),
    PartialProblem(4, 6, 20, 10),
    PartialProblem(5, 5, 4, 1, 5),
    PartialProblem(1, 1, 8, 8),
)
FASTERNET_T0 = tuple(
    PartialProblem(size, size, 4 * first, first) for size, first in ((56, 10), (28, 20), (14, 40), (7, 80))
)
TABLE_1 = tuple(
    PartialProblem(size, size, 4 * first, first) for size, first in ((56, 24), (28, 48), (14, 96), (7, 192))
)
"""The sizes of the paper's comparison of operators."""


def arrays(problem: PartialProblem) -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    image = random.standard_normal((problem.height, problem.width, problem.channels))
    return image, random.standard_normal((problem.convolved, problem.convolved, problem.kernel, problem.kernel))


@pytest.mark.parametrize("problem", AWKWARD, ids=lambda problem: problem.key)
@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
def test_every_tile_computes_the_formula(problem: PartialProblem, core: Core) -> None:
    image, kernels = arrays(problem)
    expected = TEMPLATE.reference(problem, image, kernels)
    for choice in {TEMPLATE.default(problem, core), *sample(TEMPLATE.space(problem, core), 3)}:
        assert error(run(TEMPLATE, problem, choice, core, [image], [kernels]), expected) < GATE


def test_a_kernel_with_one_wrong_weight_is_caught() -> None:
    problem = AWKWARD[1]
    image, kernels = arrays(problem)
    expected = TEMPLATE.reference(problem, image, kernels)
    kernels[-1, -1, 2, 2] += 0.01
    wrong = run(TEMPLATE, problem, TEMPLATE.default(problem, NEON), NEON, [image], [kernels])
    assert error(wrong, expected) > GATE


@pytest.mark.parametrize("problem", AWKWARD, ids=lambda problem: problem.key)
def test_the_formula_is_torchs_convolution_of_the_first_channels(problem: PartialProblem) -> None:
    image, kernels = arrays(problem)
    pixels = torch.from_numpy(image[..., : problem.convolved]).permute(2, 0, 1)[None]
    torchs = torch.conv2d(pixels, torch.from_numpy(kernels), padding=problem.kernel // 2)
    expected = torchs[0].permute(1, 2, 0).reshape(problem.rows, problem.convolved).numpy()
    np.testing.assert_allclose(TEMPLATE.reference(problem, image, kernels), expected, atol=1e-12)


@pytest.mark.parametrize("problem", (*AWKWARD, *TABLE_1), ids=lambda problem: problem.key)
def test_counts_are_the_papers(problem: PartialProblem) -> None:
    """FasterNet, equations (5) and (6): h w k^2 c^2 multiply-adds, 2 h w c + k^2 c^2 elements, c the convolved ones."""
    h, w, k, c = problem.height, problem.width, problem.kernel, problem.convolved
    assert problem.macs == h * w * k**2 * c**2
    assert problem.bytes == 4 * (2 * h * w * c + k**2 * c**2)
    assert PartialProblem.from_json(problem.to_json()) == problem


@pytest.mark.slow  # unpacks the tools for Arm where they are not
@pytest.mark.parametrize("problem", (*FASTERNET_T0, *TABLE_1), ids=lambda problem: problem.key)
def test_the_default_is_faster_than_the_formula_at_the_peak_of_a_cortex_a72(
    problem: PartialProblem, tmp_path: Path
) -> None:
    assert share(problem, TEMPLATE.default(problem, NEON), tmp_path) > 1.4


@pytest.mark.slow
def test_ten_channels_waste_no_lanes_on_a_core_with_narrow_pipes(tmp_path: Path) -> None:
    halves = ConvolutionTile(4, 10, 2, 4, "weights", outputs=1)
    assert halves in TEMPLATE.space(FASTERNET_T0[0], NEON)
    assert share(FASTERNET_T0[0], halves, tmp_path) > 0.88


def share(problem: PartialProblem, tile: ConvolutionTile, folder: Path) -> float:
    target = targets.load("cortex-a72")
    compiled = compile_kernel(TEMPLATE.kernel(problem, tile, NEON), target, folder / "kernel.o")
    return emulated.measure(compiled, target).share_of_floor(problem.macs, target)
