"""Convolutions by Winograd's short convolutions: the formula's results, with fewer multiplications than it has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kernel_rig import AVX2, CORES, GATE, NEON, error, parallel_loops, run
from test_convolution import arrays

from edge import targets
from edge.kernels.convolution import Convolution
from edge.kernels.convolution_problem import ConvolutionProblem, ConvolutionTile
from edge.kernels.core import Core
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

TEMPLATE = Convolution()
ROUND = (1, 1, 1, 1)

AWKWARD = (
    ConvolutionProblem(7, 6, 5, 5, 12, (3, 3), (1, 1), ROUND, True, "relu", "before"),  # last windows beyond the line
    ConvolutionProblem(9, 11, 20, 7, 21, (3, 3), (1, 1), ROUND, shortcut="after"),  # the first 7 of 20 channels
    ConvolutionProblem(6, 9, 3, 3, 4, (1, 3), (1, 1), (0, 0, 0, 0), True),  # nothing outside of the image
    ConvolutionProblem(5, 4, 4, 4, 6, (5, 3), (1, 1), (4, 3, 2, 5), True, "gelu"),  # windows that meet nothing inside
    ConvolutionProblem(1, 1, 2, 2, 3, (3, 3), (1, 1), (1, 2, 1, 3)),
)
STRIPS = replace(AWKWARD[0], height=64, width=41, channels=24, inputs=24, outputs=20)
"""More than one strip."""
UNSUITABLE = (
    ConvolutionProblem(9, 9, 4, 4, 4, (3, 3), (2, 2), ROUND),
    ConvolutionProblem(9, 9, 4, 4, 4, (3, 5), (1, 1), ROUND),
    ConvolutionProblem(9, 9, 4, 4, 4, (3, 3), (1, 1), ROUND, layout="NCHW"),
    ConvolutionProblem(9, 1, 4, 4, 4, (3, 3), (1, 1), ROUND),  # a line of one
)


def choices(problem: ConvolutionProblem, outputs: int, core: Core) -> list[ConvolutionTile]:
    """The first and the last choice that makes so many outputs at once."""
    found = [tile for tile in TEMPLATE.space(problem, core) if tile.outputs == outputs]
    return [found[0], found[-1]]


@pytest.mark.parametrize("problem", (*AWKWARD, STRIPS), ids=lambda problem: problem.key)
@pytest.mark.parametrize("outputs", (2, 4))
@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
def test_every_transform_computes_the_formula(problem: ConvolutionProblem, outputs: int, core: Core) -> None:
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    for choice in choices(problem, outputs, core):
        assert error(run(TEMPLATE, problem, choice, core, activations, weights), expected) < GATE


def test_a_kernel_with_one_wrong_weight_is_caught() -> None:
    problem = AWKWARD[1]
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    weights[0][-1, -1, 2, 2] += 0.01
    for choice in choices(problem, 4, AVX2):
        assert error(run(TEMPLATE, problem, choice, AVX2, activations, weights), expected) > GATE


@pytest.mark.parametrize("problem", UNSUITABLE, ids=lambda problem: problem.key)
def test_other_convolutions_have_the_formula_only(problem: ConvolutionProblem) -> None:
    assert {tile.outputs for tile in TEMPLATE.space(problem, NEON)} == {1}


@pytest.mark.parametrize("problem", (AWKWARD[0], STRIPS), ids=lambda problem: problem.key)
def test_threads_share_the_work_and_no_parallel_loop_is_inside_of_another(problem: ConvolutionProblem) -> None:
    """The image is one strip, whose lines and products are shared; or there are four strips or more."""
    for choice in choices(problem, 4, NEON):
        parallel = parallel_loops(TEMPLATE.kernel(problem, choice, NEON))
        assert parallel and min(int(loop.extent) for loop in parallel) >= 4


@pytest.mark.slow  # unpacks the tools for Arm where they are not
@pytest.mark.parametrize(
    ("problem", "share"),
    (
        (ConvolutionProblem(56, 56, 64, 64, 64, (3, 3), (1, 1), ROUND, True, "relu", "before"), 1.7),  # ResNet-18
        (ConvolutionProblem(14, 14, 256, 256, 256, (3, 3), (1, 1), ROUND, True, "relu"), 1.5),
        (ConvolutionProblem(7, 7, 512, 512, 512, (3, 3), (1, 1), ROUND, True, "relu"), 1.6),
    ),
    ids=lambda value: getattr(value, "key", ""),
)
def test_the_default_is_faster_than_the_formula_at_the_peak_of_a_cortex_a72(
    problem: ConvolutionProblem, share: float, tmp_path: Path
) -> None:
    target, default = targets.load("cortex-a72"), TEMPLATE.default(problem, NEON)
    assert default.outputs == 4
    compiled = compile_kernel(TEMPLATE.kernel(problem, default, NEON), target, tmp_path / "kernel.o")
    measured = emulated.measure(compiled, target)
    assert measured.share_of_floor(problem.macs, target) > share
    assert not any("[sp" in line for line in measured.hottest[0].listing), measured.hottest[0]
