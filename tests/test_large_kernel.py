"""Large depthwise kernels: right in every form, by every transform, and faster than their formula where it saves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_rig import AVX2, CORES, GATE, NEON, error, run, sample

from edge import targets
from edge.kernels.core import Core
from edge.kernels.large_kernel import LargeKernel, LargeKernelTemplate
from edge.kernels.lines import LineTile
from edge.kernels.template import Array
from edge.kernels.winograd import TAPS, TRANSFORMS
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

TEMPLATE = LargeKernelTemplate()

AWKWARD = (
    LargeKernel(9, 14, 10, (3, 15), (1, 7, 1, 7), "relu", "after"),
    LargeKernel(13, 9, 6, (17, 3), (8, 1, 8, 1), "relu", "before"),
    LargeKernel(11, 13, 5, (11, 13), (5, 6, 5, 6)),
    LargeKernel(7, 7, 3, (13, 13), (6, 8, 6, 4)),
    LargeKernel(16, 14, 4, (9, 10), (0, 0, 0, 0)),
    LargeKernel(1, 3, 4, (5, 31), (2, 15, 2, 15)),
)


def arrays(problem: LargeKernel) -> tuple[list[Array], list[Array]]:
    """Activations and plain weights in float64."""
    random = np.random.default_rng(0)
    weights = [random.standard_normal((*problem.kernel, problem.channels)), random.standard_normal(problem.channels)]
    activations = [random.standard_normal((1, problem.height, problem.width, problem.channels))]
    if problem.shortcut != "none":
        activations.append(random.standard_normal((1, problem.rows.length, problem.columns.length, problem.channels)))
    return activations, weights


@pytest.mark.parametrize("outputs", TRANSFORMS)
def test_a_transform_is_the_convolution(outputs: int) -> None:
    transform = TRANSFORMS[outputs]
    random = np.random.default_rng(0)
    taps, inputs = random.standard_normal(TAPS), random.standard_normal(outputs + 2)
    expected = np.correlate(inputs, taps)
    products = transform.weights(taps) * np.array(transform.inputs(inputs))
    assert len(products) == outputs + 2
    np.testing.assert_allclose(transform.outputs(products), expected, atol=1e-12)
    matrices = np.array(transform.b), np.array(transform.a)
    np.testing.assert_allclose(transform.inputs(inputs), matrices[0] @ inputs, atol=1e-12)
    np.testing.assert_allclose(transform.outputs(products), matrices[1] @ products, atol=1e-12)


class Exact(float):
    """A value that is multiplied by powers of two only, so that a fused multiply-add rounds as two instructions do."""

    def __mul__(self, factor: float) -> Exact:
        assert np.frexp(factor)[0] == 0.5
        return Exact(float(self) * factor)

    def __add__(self, other: float) -> Exact:
        return Exact(float(self) + other)

    def __sub__(self, other: float) -> Exact:
        return Exact(float(self) - other)


@pytest.mark.parametrize("outputs", TRANSFORMS)
def test_a_transform_has_the_same_bits_with_and_without_fused_multiply_adds(outputs: int) -> None:
    values = [Exact(value) for value in range(1, outputs + 3)]
    TRANSFORMS[outputs].inputs(values)
    TRANSFORMS[outputs].outputs(values)


@pytest.mark.parametrize("problem", AWKWARD, ids=lambda problem: problem.key)
def test_every_tile_computes_the_formula(problem: LargeKernel) -> None:
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    choices = {TEMPLATE.default(problem, NEON): NEON, TEMPLATE.default(problem, AVX2): AVX2}
    choices |= dict.fromkeys(sample(TEMPLATE.space(problem, NEON), 3), NEON)
    for choice, core in choices.items():
        assert error(run(TEMPLATE, problem, choice, core, activations, weights), expected) < GATE


def test_a_kernel_with_one_wrong_weight_is_caught() -> None:
    problem = AWKWARD[0]
    activations, weights = arrays(problem)
    expected = TEMPLATE.reference(problem, *activations, *weights)
    weights[0][2, 0, problem.channels - 1] *= 1.001
    wrong = run(TEMPLATE, problem, TEMPLATE.default(problem, NEON), NEON, activations, weights)
    assert error(wrong, expected) > GATE


def test_the_formula_is_that_of_torch() -> None:
    problem = replace(AWKWARD[2], activation="none")
    (source,), (kernel, bias) = arrays(problem)
    filters = torch.from_numpy(kernel).permute(2, 0, 1)[:, None]
    image = torch.from_numpy(source).permute(0, 3, 1, 2)
    torchs = torch.conv2d(image, filters, torch.from_numpy(bias), 1, problem.padding[:2], groups=problem.channels)
    expected = torchs.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(TEMPLATE.reference(problem, source, kernel, bias), expected, atol=1e-12)


@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
@pytest.mark.parametrize("problem", AWKWARD, ids=lambda problem: problem.key)
def test_problems_are_counted_and_choices_are_plain(problem: LargeKernel, core: Core) -> None:
    plain = replace(problem, activation="none", shortcut="none")
    ones = np.ones((1, plain.height, plain.width, plain.channels))
    counts = TEMPLATE.reference(plain, ones, np.ones((*plain.kernel, plain.channels)), np.zeros(plain.channels))
    assert problem.macs == counts.sum()
    assert problem.bytes == 4 * (
        ones.size + counts.size * (1 + (problem.shortcut != "none")) + (np.prod(plain.kernel) + 1) * plain.channels
    )
    space, default = TEMPLATE.space(problem, core), TEMPLATE.default(problem, core)
    assert default in space
    assert len(set(space)) == len(space)
    assert LineTile.from_json(default.to_json()) == default
    assert LargeKernel.from_json(problem.to_json()) == problem


@pytest.mark.slow  # unpacks the tools for Arm where they are not
def test_a_strip_beats_its_own_formula_at_peak_on_a_cortex_a72(tmp_path: Path) -> None:
    target, problem = targets.load("cortex-a72"), LargeKernel(56, 56, 4, (3, 51), (1, 25, 1, 25))
    kernel = TEMPLATE.kernel(problem, TEMPLATE.default(problem, NEON), NEON)
    compiled = compile_kernel(kernel, target, tmp_path / "kernel.o")
    measured = emulated.measure(compiled, target)
    assert measured.share_of_floor(problem.macs, target) > 1.2
    hottest = measured.hottest[0]
    assert hottest.share > 0.6
    assert sum(line.startswith("fmla") for line in hottest.listing) > 0.97 * hottest.modelled_cycles
    assert not any("[sp" in line for line in hottest.listing)
