"""Depthwise convolutions: right at every edge for every tile, counted, and near the core's peak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_rig import AVX2, CORES, GATE, NEON, error, run, sample

from edge import targets
from edge.kernels.depthwise import Depthwise, DepthwiseTemplate, Tile
from edge.kernels.template import Array
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

TEMPLATE = DepthwiseTemplate()
SAME3, SAME7 = (1, 1, 1, 1), (3, 3, 3, 3)

AWKWARD = (
    Depthwise(9, 7, 10, (3, 3), 1, SAME3),
    Depthwise(8, 13, 6, (3, 3), 2, SAME3, "relu6", "after"),
    Depthwise(16, 16, 8, (3, 3), 2, (0, 0, 1, 1), "relu"),  # as TensorFlow pads
    Depthwise(13, 11, 5, (7, 7), 1, SAME7, "gelu"),
    Depthwise(11, 14, 4, (5, 5), 2, (2, 2, 2, 2)),
    Depthwise(1, 1, 3, (3, 3), 1, SAME3),
    Depthwise(5, 1, 17, (3, 3), 1, SAME3, "relu", "before"),
    Depthwise(6, 9, 8, (3, 3), 1),
    Depthwise(4, 6, 4, (7, 5), 3, (3, 2, 3, 2)),
)
NETWORKS = (
    Depthwise(112, 112, 32, (3, 3), 1, SAME3, "relu6"),  # MobileNetV2
    Depthwise(14, 14, 384, (3, 3), 2, SAME3, "relu6"),
    Depthwise(28, 28, 96, (3, 3), 1, SAME3),
    Depthwise(56, 56, 96, (7, 7), 1, SAME7),  # ConvNeXt
    Depthwise(7, 7, 768, (7, 7), 1, SAME7),
)


def arrays(problem: Depthwise) -> tuple[list[Array], list[Array]]:
    """Activations and plain weights in float64."""
    random = np.random.default_rng(0)
    result = (1, problem.rows.length, problem.columns.length, problem.channels)
    activations = [random.standard_normal((1, problem.height, problem.width, problem.channels))]
    if problem.shortcut != "none":
        activations.append(random.standard_normal(result))
    weights = [random.standard_normal((*problem.kernel, problem.channels)), random.standard_normal(problem.channels)]
    return activations, weights


@pytest.mark.parametrize("problem", AWKWARD, ids=lambda problem: problem.key)
@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
def test_every_tile_computes_the_formula(problem: Depthwise, core: object) -> None:
    assert core in (NEON, AVX2)
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    for choice in {TEMPLATE.default(problem, core), *sample(TEMPLATE.space(problem, core), 2)}:
        assert error(run(TEMPLATE, problem, choice, core, activations, weights), expected) < GATE


def test_a_kernel_with_one_wrong_weight_is_caught() -> None:
    problem = AWKWARD[0]
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    weights[0][2, 0, problem.channels - 1] *= 1.001  # a corner of the kernel, in the channel that no whole vector holds
    wrong = run(TEMPLATE, problem, TEMPLATE.default(problem, NEON), NEON, activations, weights)
    assert error(wrong, expected) > GATE


@pytest.mark.parametrize("problem", AWKWARD, ids=lambda problem: problem.key)
def test_the_formula_is_that_of_torch(problem: Depthwise) -> None:
    plain = replace(problem, activation="none", shortcut="none")
    (source,), (kernel, bias) = arrays(plain)
    top, left, bottom, right = plain.padding
    image = torch.nn.functional.pad(torch.from_numpy(source).permute(0, 3, 1, 2), (left, right, top, bottom))
    filters = torch.from_numpy(kernel).permute(2, 0, 1)[:, None]
    torchs = torch.conv2d(image, filters, torch.from_numpy(bias), plain.stride, groups=plain.channels)
    expected = torchs.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(TEMPLATE.reference(plain, source, kernel, bias), expected, atol=1e-12)


@pytest.mark.parametrize("problem", AWKWARD, ids=lambda problem: problem.key)
def test_products_with_padding_are_not_counted(problem: Depthwise) -> None:
    """With ones everywhere, the results are the numbers of products."""
    plain = replace(problem, activation="none", shortcut="none")
    ones = np.ones((1, plain.height, plain.width, plain.channels))
    counts = TEMPLATE.reference(plain, ones, np.ones((*plain.kernel, plain.channels)), np.zeros(plain.channels))
    assert problem.macs == counts.sum()
    elements = (
        ones.size + counts.size * (1 + (problem.shortcut != "none")) + (np.prod(plain.kernel) + 1) * plain.channels
    )
    assert problem.bytes == 4 * elements


@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
def test_the_default_is_in_the_space_and_leaves_registers(core: object) -> None:
    assert core in (NEON, AVX2)
    for problem in (*AWKWARD, *NETWORKS):
        space = TEMPLATE.space(problem, core)
        default = TEMPLATE.default(problem, core)
        assert default in space
        assert len(set(space)) == len(space)
        assert all(tile.rows * tile.columns < core.registers for tile in space)
        assert Tile.from_json(default.to_json()) == default
        assert Depthwise.from_json(problem.to_json()) == problem
    assert len({problem.key for problem in (*AWKWARD, *NETWORKS)}) == len(AWKWARD) + len(NETWORKS)


@pytest.mark.slow  # unpacks the tools for Arm where they are not
@pytest.mark.parametrize("problem", NETWORKS[2:], ids=lambda problem: problem.key)
def test_the_default_reaches_its_roofline_on_a_cortex_a72(problem: Depthwise, tmp_path: Path) -> None:
    target = targets.load("cortex-a72")
    small = replace(problem, channels=16)
    compiled = compile_kernel(
        TEMPLATE.kernel(small, TEMPLATE.default(small, NEON), NEON), target, tmp_path / "kernel.o"
    )
    measured = emulated.measure(compiled, target)
    assert 0.7 < measured.share_of_floor(small.macs, target) < 1
    for block in measured.hottest:
        assert not any(line.startswith("st") and "[sp" in line for line in block.listing), str(block)
