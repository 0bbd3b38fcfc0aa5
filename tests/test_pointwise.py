"""Pointwise convolutions, linear layers and windows: right at every edge for every tile, counted, near the peak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_rig import AVX2, CORES, GATE, NEON, error, run, sample

from edge import targets
from edge.kernels import gemm
from edge.kernels.core import Core
from edge.kernels.gemm import Tile
from edge.kernels.pointwise import Pointwise
from edge.kernels.pointwise_problem import PointwiseProblem, PointwiseTile
from edge.kernels.template import Array
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

TEMPLATE = Pointwise()

AWKWARD = (
    PointwiseProblem(49, 40, 40, True, "relu", "after", 10),
    PointwiseProblem(13, 7, 13, True, "gelu", "before"),
    PointwiseProblem(1, 13, 7),
    PointwiseProblem(1, 1, 1, True, "relu6"),
    PointwiseProblem(5, 8, 18, partial=3),  # columns that leave half a register empty
    PointwiseProblem(4, 3, 10, True, window=4, height=8, width=9, layout="NCHW"),  # a column that no window covers
    PointwiseProblem(6, 5, 23, window=2, height=5, width=6),
)
NETWORKS = (
    PointwiseProblem(3136, 40, 80, True, "gelu", partial=10),  # FasterNet-T0
    PointwiseProblem(196, 320, 160, shortcut="after"),
    PointwiseProblem(784, 40, 80, True, window=2, height=56, width=56),
    PointwiseProblem(1, 1280, 1000, True),
    PointwiseProblem(49, 1024, 512, shortcut="after"),  # T1
)


def arrays(problem: PointwiseProblem) -> tuple[list[Array], list[Array]]:
    """Activations and plain weights in float64."""
    random = np.random.default_rng(0)
    activations = [random.standard_normal((problem.rows, problem.partial))] if problem.partial else []
    image = {
        "NHWC": (problem.height, problem.width, problem.inputs),
        "NCHW": (problem.inputs, problem.height, problem.width),
    }
    activations.append(
        random.standard_normal(image[problem.layout] if problem.window > 1 else (problem.rows, problem.inputs))
    )
    if problem.shortcut != "none":
        activations.append(random.standard_normal((problem.rows, problem.outputs)))
    weights = [random.standard_normal((problem.outputs, problem.reduction))]
    return activations, [*weights, random.standard_normal(problem.outputs)] if problem.bias else weights


@pytest.mark.parametrize("problem", AWKWARD, ids=lambda problem: problem.key)
@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
def test_every_tile_computes_the_formula(problem: PointwiseProblem, core: Core) -> None:
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    for choice in {TEMPLATE.default(problem, core), *sample(TEMPLATE.space(problem, core), 2)}:
        assert error(run(TEMPLATE, problem, choice, core, activations, weights), expected) < GATE


def test_a_kernel_with_one_wrong_weight_is_caught() -> None:
    problem = AWKWARD[0]
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    weights[0][-1, -1] += 0.01
    wrong = run(TEMPLATE, problem, TEMPLATE.default(problem, NEON), NEON, activations, weights)
    assert error(wrong, expected) > GATE


def test_the_formula_of_windows_is_torchs_convolution() -> None:
    for problem in AWKWARD[-2:]:
        plain = replace(problem, bias=False, activation="none")
        (image,), (matrix,) = arrays(plain)
        side, last = plain.window, plain.layout == "NHWC"
        pixels = torch.from_numpy(image if not last else image.transpose(2, 0, 1))[None]
        shape = (plain.outputs, side, side, plain.inputs) if last else (plain.outputs, plain.inputs, side, side)
        kernels = torch.from_numpy(matrix.reshape(shape))
        torchs = torch.conv2d(pixels, kernels.permute(0, 3, 1, 2) if last else kernels, stride=side)
        expected = torchs[0].permute(1, 2, 0).reshape(plain.rows, plain.outputs).numpy()
        np.testing.assert_allclose(TEMPLATE.reference(plain, image, matrix), expected, atol=1e-12)


@pytest.mark.parametrize("problem", (*AWKWARD, *NETWORKS), ids=lambda problem: problem.key)
def test_products_and_bytes_are_counted(problem: PointwiseProblem) -> None:
    """With ones everywhere, the results are the numbers of products."""
    plain = replace(problem, bias=False, activation="none", shortcut="none")
    ones = [np.ones_like(array) for part in arrays(plain) for array in part]
    assert problem.macs == TEMPLATE.reference(plain, *ones).sum()
    activations, weights = arrays(problem)
    unread = problem.rows * problem.partial  # of the image, which has them from elsewhere
    if problem.window > 1:
        unread = activations[0].size - problem.rows * problem.reduction
    elements = sum(array.size for array in (*activations, *weights)) - unread + problem.rows * problem.outputs
    assert problem.bytes == 4 * elements


@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
def test_the_space_fits_the_core(core: Core) -> None:
    for problem in (*AWKWARD, *NETWORKS):
        space = TEMPLATE.space(problem, core)
        assert TEMPLATE.default(problem, core) in space
        assert len(set(space)) == len(space)
        for tile in space:
            assert tile.rows * (tile.columns // tile.lanes) + tile.columns // tile.lanes < core.registers
            assert tile.columns % tile.lanes == 0
        assert PointwiseTile.from_json(space[-1].to_json()) == space[-1]
        assert PointwiseProblem.from_json(problem.to_json()) == problem
    assert len({problem.key for problem in (*AWKWARD, *NETWORKS)}) == len(AWKWARD) + len(NETWORKS)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (49, 40), (50, 23), (7, 18)])
def test_regions_cover_the_result_once(rows: int, columns: int) -> None:
    for tile in (Tile(4, 20, 4, 4, "rows"), Tile(7, 8, 8, 8, "weights"), Tile(2, 6, 2, 4, "rows")):
        covered = np.zeros((rows, columns), int)
        for region in gemm.regions(rows, columns, tile):
            assert region.rows % region.tile_rows == region.columns % region.tile_columns == 0
            covered[region.row : region.row + region.rows, region.column : region.column + region.columns] += 1
        assert (covered == 1).all()


@pytest.mark.slow  # unpacks the tools for Arm where they are not
@pytest.mark.parametrize(
    ("problem", "share"),
    zip(NETWORKS, (0.6, 0.95, 0.95, 0.9, 0.95), strict=True),
    ids=lambda value: getattr(value, "key", ""),
)
def test_the_default_is_near_the_peak_of_a_cortex_a72(problem: PointwiseProblem, share: float, tmp_path: Path) -> None:
    """Forty multiply-adds for each GELU leave the first one at six tenths."""
    target = targets.load("cortex-a72")
    kernel = TEMPLATE.kernel(problem, TEMPLATE.default(problem, NEON), NEON)
    measured = emulated.measure(compile_kernel(kernel, target, tmp_path / "kernel.o"), target)
    assert share < measured.share_of_floor(problem.macs, target) < 1
    loop = measured.hottest[0].listing
    assert not any("[sp" in line for line in loop), measured.hottest[0]
    assert sum(line.startswith("ldp q") for line in loop) >= sum(line.startswith("ldr q") for line in loop)


def test_both_cores_have_their_own_default() -> None:
    assert TEMPLATE.default(NETWORKS[1], NEON).lanes == 4
    assert TEMPLATE.default(NETWORKS[1], AVX2).lanes == 8
