"""Kernels compiled for this host and run: what tests of the templates share."""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from edge import targets
from edge.kernels import statements
from edge.kernels.core import Core
from edge.kernels.statements import Loops
from edge.kernels.template import Array, Choice, Problem, Template

NEON = Core.of(targets.load("cortex-a72"))
AVX2 = Core.of(targets.load("x86-64"))
CORES = {"NEON": NEON, "AVX2": AVX2}

GATE = 1e-5
"""Largest error relative to the largest result: the fp32 gate of every target."""


@lru_cache
def _target() -> tvm.target.Target:
    host = targets.baseline(platform.machine())
    assert host.tvm is not None
    return tvm.target.Target(host.tvm.model_dump(mode="json")["target"])


def run(
    template: Template[Any, Any],
    problem: Problem,
    choice: Choice,
    core: Core,
    activations: list[Array],
    weights: list[Array],
) -> Array:
    """The kernel's result for float64 arrays; the kernel is shaped for ``core`` and compiled for this host."""
    function = template.kernel(problem, choice, core).with_attr("global_symbol", "kernel")
    assert function.attrs["tirx.is_scheduled"] and function.attrs["tirx.noalias"]
    executable = tvm.compile(tvm.IRModule({"kernel": function}), target=_target())
    constants = template.pack(problem, choice, *weights)
    assert all(constant.dtype == np.float32 and constant.flags.c_contiguous for constant in constants)
    shapes = [tuple(map(int, parameter.shape)) for parameter in function.params]
    arrays = [*(array.astype(np.float32) for array in activations), *constants]
    assert [array.shape for array in arrays] == shapes[:-1]
    result = tvm.runtime.tensor(np.full(shapes[-1], np.nan, np.float32))
    executable["kernel"](*map(tvm.runtime.tensor, arrays), result)
    return result.numpy()


def error(result: Array, reference: Array) -> float:
    """The largest error, relative to the largest value of the reference; infinite where a value was not written."""
    assert reference.dtype == np.float64
    assert result.shape == reference.shape
    return float(np.nan_to_num(np.abs(result - reference), nan=np.inf).max() / np.abs(reference).max())


def parallel_loops(function: tirx.PrimFunc) -> list[tirx.For]:
    """A kernel's parallel loops; none may be inside of another."""
    found: list[tirx.For] = []

    def note(statement: tirx.Stmt, around: Loops) -> tirx.Stmt:
        if isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL:
            assert all(loop.kind == tirx.ForKind.SERIAL for loop in around)
            found.append(statement)
        return statement

    statements.rewrite(function, note)
    return found


def sample(choices: tuple[Choice, ...], count: int = 4) -> list[Choice]:
    """Some of a space, the first and the last among them."""
    return [choices[round(index * (len(choices) - 1) / max(1, count - 1))] for index in range(min(count, len(choices)))]
