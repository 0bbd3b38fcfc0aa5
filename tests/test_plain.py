"""The plain schedule: a product's tile is in registers, on the stack's way there, and never in a workspace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import te, tirx

from edge import targets
from edge.kernels import plain
from edge.kernels.core import Core
from edge.targets import Target
from edge.tuning import emulated
from edge.tuning.compiled import compile_kernel

NARROW, WIDE = targets.load("cortex-a72"), targets.load("x86-64-v4")
ROWS, COLUMNS, DEPTH = 196, 192, 64


def product() -> tirx.PrimFunc:
    """Two tensors that are computed, as attention multiplies them, and an activation."""
    a, b = te.placeholder((ROWS, DEPTH), name="a"), te.placeholder((DEPTH, COLUMNS), name="b")
    k = te.reduce_axis((0, DEPTH))
    total = te.compute((ROWS, COLUMNS), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k))
    zero = tirx.const(0, "float32")
    return te.create_prim_func([a, b, te.compute(total.shape, lambda i, j: tirx.max(total[i, j], zero))])


def scheduled(target: Target) -> tirx.PrimFunc:
    core = Core.of(target)
    function, way = plain.schedule(product(), plain.Vectors(core.lanes, core.registers))
    assert way == "tiled"
    return function


def assembly(target: Target) -> str:
    assert target.tvm is not None
    table = tvm.target.Target(target.tvm.model_dump(mode="json")["target"])
    module = tvm.IRModule({"main": scheduled(target).with_attr("global_symbol", "main")})
    return str(tvm.compile(module, target=table).mod.inspect_source("asm"))


@pytest.mark.parametrize("target", [NARROW, WIDE], ids=lambda target: target.name)
def test_a_tile_needs_no_workspace(target: Target) -> None:
    assert "AllocWorkspace" not in assembly(target)


def test_a_tile_that_is_too_large_for_the_stack_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above would see one."""
    monkeypatch.setattr(plain, "STACK_BYTES", 1 << 20)
    assert "AllocWorkspace" in assembly(WIDE)


@pytest.mark.parametrize("target", [NARROW, WIDE], ids=lambda target: target.name)
def test_it_computes_the_product(target: Target) -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((ROWS, DEPTH)), random.standard_normal((DEPTH, COLUMNS))
    module = tvm.IRModule({"main": scheduled(target).with_attr("global_symbol", "main")})
    result = tvm.runtime.tensor(np.full((ROWS, COLUMNS), np.nan, np.float32))
    arguments = (tvm.runtime.tensor(array.astype(np.float32)) for array in (a, b))
    tvm.compile(module, target={"kind": "llvm"})["main"](*arguments, result)
    np.testing.assert_allclose(result.numpy(), np.maximum(a @ b, 0), atol=1e-4)


@pytest.mark.slow  # unpacks the tools for Arm where they are not
def test_a_product_is_near_the_peak_of_a_cortex_a72(tmp_path: Path) -> None:
    compiled = compile_kernel(scheduled(NARROW), NARROW, tmp_path / "kernel.o")
    measured = emulated.measure(compiled, NARROW)
    assert measured.share_of_floor(ROWS * COLUMNS * DEPTH, NARROW) > 0.9
    assert not any("[sp" in line for line in measured.hottest[0].listing), measured.hottest[0]
