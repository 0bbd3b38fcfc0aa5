"""Grouped convolution against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from edge import targets
from edge.kernels.core import Core
from edge.kernels.grouped import Grouped, GroupedTemplate

CORE = Core.of(targets.load("x86-64"))


@pytest.mark.parametrize(
    "problem", [Grouped(5, 7, 96, 16), Grouped(8, 4, 12, 3), Grouped(3, 3, 6, 1), Grouped(4, 4, 5, 5)]
)
def test_a_grouped_convolution_is_its_formula(problem: Grouped) -> None:
    template, random = GroupedTemplate(), np.random.default_rng(0)
    image = random.standard_normal((problem.height, problem.width, problem.groups, problem.depth)).astype(np.float32)
    weights = random.standard_normal((problem.channels, problem.depth, 3, 3)).astype(np.float32)
    choice = template.default(problem, CORE)
    kernel = tvm.compile(template.kernel(problem, choice, CORE), target={"kind": "llvm", "num-cores": 1})
    packed = [tvm.runtime.tensor(array) for array in template.pack(problem, choice, weights)]
    result = tvm.runtime.tensor(np.zeros_like(image))
    kernel(tvm.runtime.tensor(image), *packed, result)
    expected = template.reference(problem, image.astype(np.float64), weights.astype(np.float64))
    assert np.abs(result.numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_one_group_is_a_dense_convolution_and_groups_divide_its_multiply_adds() -> None:
    dense, grouped = Grouped(56, 56, 96, 1), Grouped(56, 56, 96, 16)
    assert dense.macs == 56 * 56 * 96 * 96 * 9 == 16 * grouped.macs
    assert dense.bytes - grouped.bytes == 4 * 9 * 96 * (96 - 6)
