"""LayerNorm and global response normalisation: the formulas, in float32, for any number of rows and channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kernel_rig import AVX2, GATE, NEON, error, run, sample

from edge import targets
from edge.kernels.normalisation import (
    LayerNorm,
    LayerNormTemplate,
    Normalisation,
    ResponseNorm,
    ResponseNormTemplate,
    Together,
)
from edge.kernels.template import Array, Template
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

KINDS: dict[str, tuple[Template[Any, Any], Callable[..., Normalisation]]] = {
    "layer norm": (LayerNormTemplate(), LayerNorm),
    "response norm": (ResponseNormTemplate(), ResponseNorm),
}
SHAPES = ((9, 10), (7, 37), (1, 3), (49, 16))


def arrays(problem: Normalisation) -> tuple[list[Array], list[Array]]:
    """Values far from zero, as a sum of squares without the mean would not forgive, and plain weights."""
    random = np.random.default_rng(0)
    weights = [random.standard_normal(problem.channels) for _ in range(2)]
    return [random.standard_normal((problem.rows, problem.channels)) + 30], weights


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_choice_computes_the_formula(kind: str, shape: tuple[int, int]) -> None:
    template, make = KINDS[kind]
    problem = make(*shape, 1e-6)
    activations, weights = arrays(problem)
    expected = template.reference(problem, *activations, *weights)
    choices = {template.default(problem, AVX2): AVX2}
    choices |= dict.fromkeys([template.default(problem, NEON), *sample(template.space(problem, NEON), 2)], NEON)
    for choice, core in choices.items():
        assert error(run(template, problem, choice, core, activations, weights), expected) < GATE


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_with_another_epsilon_is_caught(kind: str) -> None:
    template, make = KINDS[kind]
    problem, other = make(9, 10, 1e-6), make(9, 10, 1e-2)
    activations, weights = arrays(problem)
    expected = template.reference(problem, *activations, *weights)
    wrong = run(template, other, template.default(other, NEON), NEON, activations, weights)
    assert error(wrong, expected) > GATE


def test_the_formulas_are_those_of_torch_and_of_the_networks() -> None:
    problem = LayerNorm(9, 10, 1e-6)
    (source,), (scale, bias) = arrays(problem)
    x, gamma, beta = map(torch.from_numpy, (source, scale, bias))
    torchs = torch.nn.functional.layer_norm(x, (10,), gamma, beta, 1e-6).numpy()
    np.testing.assert_allclose(LayerNormTemplate().reference(problem, source, scale, bias), torchs, atol=1e-12)
    norms = torch.norm(x, p=2, dim=0, keepdim=True)
    network = (gamma * (norms / (norms.mean(dim=-1, keepdim=True) + 1e-6)) + 1) * x + beta
    response = ResponseNormTemplate().reference(ResponseNorm(9, 10, 1e-6), source, scale, bias)
    np.testing.assert_allclose(response, network.numpy(), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_problems_and_choices_are_plain(kind: str) -> None:
    template, make = KINDS[kind]
    problems = [make(*shape, 1e-6) for shape in (*SHAPES, (3136, 96))]
    for problem in problems:
        default = template.default(problem, NEON)
        assert default in template.space(problem, NEON)
        assert Together.from_json(default.to_json()) == default
        assert template.problems.from_json(problem.to_json()) == problem
        assert problem.bytes == 4 * (2 * problem.rows * problem.channels + 2 * problem.channels)
    assert len({problem.key for problem in problems}) == len(problems)


@pytest.mark.slow  # unpacks the tools for Arm where they are not
@pytest.mark.parametrize(("kind", "cycles"), [("layer norm", 11), ("response norm", 6)])
def test_a_vector_of_values_takes_a_few_cycles_on_a_cortex_a72(kind: str, cycles: float, tmp_path: Path) -> None:
    """Beside a ConvNeXt block's pointwise layers, which take 8 cycles a channel for it, that is about a hundredth."""
    template, make = KINDS[kind]
    problem, target = make(196, 96, 1e-6), targets.load("cortex-a72")
    kernel = template.kernel(problem, template.default(problem, NEON), NEON)
    compiled = compile_kernel(kernel, target, tmp_path / "kernel.o")
    measured = emulated.measure(compiled, target)
    assert measured.modelled_cycles < cycles * problem.rows * problem.channels / NEON.lanes
