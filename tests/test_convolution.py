"""Dense convolutions: right at every border for every tile and layout, counted, and near the core's peak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_rig import CORES, GATE, NEON, error, run, sample

from edge import targets
from edge.kernels.convolution import Convolution
from edge.kernels.convolution_problem import ConvolutionProblem
from edge.kernels.core import Core
from edge.kernels.template import Array
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

TEMPLATE = Convolution()
ROUND = (1, 1, 1, 1)

AWKWARD = (
    ConvolutionProblem(7, 6, 5, 5, 12, (3, 3), (1, 1), ROUND, True, "relu", "before"),
    ConvolutionProblem(9, 11, 3, 3, 7, (3, 3), (2, 2), (0, 0, 1, 1), True, "relu6"),  # as TensorFlow pads
    ConvolutionProblem(13, 10, 3, 3, 8, (7, 7), (2, 2), (3, 3, 3, 3), True, "relu", layout="NCHW"),
    ConvolutionProblem(8, 5, 20, 8, 16, (3, 5), (2, 1), (2, 0, 1, 3), shortcut="after"),  # the first 8 of 20 channels
    ConvolutionProblem(7, 7, 6, 6, 10, (1, 1), (2, 2)),  # in place: the way past a block of ResNet's that halves
    ConvolutionProblem(5, 6, 4, 4, 9, (2, 3), layout="NCHW"),
    ConvolutionProblem(1, 1, 1, 1, 1, (3, 3), (1, 1), ROUND),
    ConvolutionProblem(2, 2, 3, 3, 4, (3, 3), (5, 5), (4, 1, 0, 1)),  # no window meets the image from above
)
NETWORKS = (
    (ConvolutionProblem(56, 56, 64, 64, 128, (3, 3), (2, 2), ROUND, True, "relu"), 0.95),  # ResNet-18
    (ConvolutionProblem(28, 28, 128, 128, 256, (1, 1), (2, 2), bias=True), 0.9),
    (ConvolutionProblem(224, 224, 3, 3, 64, (7, 7), (2, 2), (3,) * 4, True, "relu", layout="NCHW"), 0.95),
    (ConvolutionProblem(224, 224, 3, 3, 16, (3, 3), (2, 2), ROUND, True, "relu6", layout="NCHW"), 0.8),  # MobileNet
)


def arrays(problem: ConvolutionProblem) -> tuple[list[Array], list[Array]]:
    """Activations and plain weights in float64."""
    random = np.random.default_rng(0)
    image = (problem.height, problem.width, problem.channels)
    activations = [random.standard_normal(image if problem.layout == "NHWC" else (image[2], *image[:2]))]
    if problem.shortcut != "none":
        activations.append(random.standard_normal((problem.rows, problem.outputs)))
    weights = [random.standard_normal((problem.outputs, problem.inputs, *problem.kernel))]
    return activations, [*weights, random.standard_normal(problem.outputs)] if problem.bias else weights


@pytest.mark.parametrize("problem", AWKWARD[:-1], ids=lambda problem: problem.key)
@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
def test_every_tile_computes_the_formula(problem: ConvolutionProblem, core: Core) -> None:
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    for choice in {TEMPLATE.default(problem, core), *sample(TEMPLATE.space(problem, core), 2)}:
        assert error(run(TEMPLATE, problem, choice, core, activations, weights), expected) < GATE


def test_windows_that_meet_nothing_but_padding_are_zero() -> None:
    problem = AWKWARD[-1]
    result = run(TEMPLATE, problem, TEMPLATE.default(problem, NEON), NEON, *arrays(problem))
    assert (result == 0).all()


def test_a_kernel_with_one_wrong_weight_is_caught() -> None:
    problem = AWKWARD[1]
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    weights[0][-1, -1, 2, 2] += 0.01
    wrong = run(TEMPLATE, problem, TEMPLATE.default(problem, NEON), NEON, activations, weights)
    assert error(wrong, expected) > GATE


@pytest.mark.parametrize("problem", AWKWARD, ids=lambda problem: problem.key)
def test_the_formula_is_torchs_convolution(problem: ConvolutionProblem) -> None:
    plain = replace(problem, bias=False, activation="none", shortcut="none")
    (image,), (kernels,) = arrays(plain)
    last = image if plain.layout == "NHWC" else image.transpose(1, 2, 0)
    pixels = torch.from_numpy(last[..., : plain.inputs]).permute(2, 0, 1)[None]
    top, left, bottom, right = plain.padding
    padded = torch.nn.functional.pad(pixels, (left, right, top, bottom))
    torchs = torch.conv2d(padded, torch.from_numpy(kernels), stride=plain.strides)
    expected = torchs[0].permute(1, 2, 0).reshape(plain.rows, plain.outputs).numpy()
    np.testing.assert_allclose(TEMPLATE.reference(plain, image, kernels), expected, atol=1e-12)


@pytest.mark.parametrize("problem", (*AWKWARD, *(problem for problem, _ in NETWORKS)), ids=lambda p: p.key)
def test_products_and_bytes_are_counted(problem: ConvolutionProblem) -> None:
    """Products: with ones everywhere, and an image that is large enough to need no padding, the results count them."""
    top, left, bottom, right = problem.padding
    height, width = problem.height + top + bottom, problem.width + left + right
    whole = replace(problem, height=height, width=width, padding=(0, 0, 0, 0), bias=False, activation="none")
    whole = replace(whole, shortcut="none")
    assert whole.rows == problem.rows
    (image,), weights = arrays(whole)
    assert problem.macs == TEMPLATE.reference(whole, np.ones_like(image), *map(np.ones_like, weights)).sum()
    rows, columns = (
        min(length, (count - 1) * stride + kernel - before)
        for length, count, stride, kernel, before in (
            (problem.height, problem.down.length, problem.strides[0], problem.kernel[0], top),
            (problem.width, problem.across.length, problem.strides[1], problem.kernel[1], left),
        )
    )
    activations, weights = arrays(problem)
    elements = max(0, rows) * max(0, columns) * problem.inputs + problem.rows * problem.outputs
    assert problem.bytes == 4 * (elements + sum(array.size for array in (*activations[1:], *weights)))
    assert ConvolutionProblem.from_json(problem.to_json()) == problem


def test_equal_keys_are_equal_problems() -> None:
    problems = (*AWKWARD, *(problem for problem, _ in NETWORKS))
    assert len({problem.key for problem in problems}) == len(problems)


@pytest.mark.slow  # unpacks the tools for Arm where they are not
@pytest.mark.parametrize(("problem", "share"), NETWORKS, ids=lambda value: getattr(value, "key", ""))
def test_the_default_is_near_the_peak_of_a_cortex_a72(
    problem: ConvolutionProblem, share: float, tmp_path: Path
) -> None:
    target = targets.load("cortex-a72")
    kernel = TEMPLATE.kernel(problem, TEMPLATE.default(problem, NEON), NEON)
    measured = emulated.measure(compile_kernel(kernel, target, tmp_path / "kernel.o"), target)
    assert share < measured.share_of_floor(problem.macs, target) < 1
    assert not any("[sp" in line for line in measured.hottest[0].listing), measured.hottest[0]
