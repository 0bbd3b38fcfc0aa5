"""One kernel on the emulated core: right counts, the same every time, and a fault is a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from tvm import te, tirx

from edge import targets
from edge.errors import ExportError
from edge.kernels import plain
from edge.tuning import emulated
from edge.tuning.compiled import Kernel, argument_shapes, compile_kernel

pytestmark = pytest.mark.slow  # the first of them unpacks the tools for Arm

TARGET = targets.load("cortex-a72")
ROWS, INNER, COLUMNS = 64, 32, 40
MACS = ROWS * INNER * COLUMNS


def product(rows: int = ROWS, *, scratch: bool = False) -> tirx.PrimFunc:
    """A matrix product; with ``scratch`` its first factor is copied to memory of the kernel's own before."""
    a, b = te.placeholder((rows, INNER), name="A"), te.placeholder((INNER, COLUMNS), name="B")
    k = te.reduce_axis((0, INNER))
    doubled = te.compute(a.shape, lambda i, j: a[i, j] * 2, name="doubled") if scratch else a
    c = te.compute((rows, COLUMNS), lambda i, j: te.sum(doubled[i, k] * b[k, j], axis=k), name="C")
    return plain.schedule(te.create_prim_func([a, b, c]), plain.Vectors(lanes=4, registers=32))[0]


def compiled(function: tirx.PrimFunc, folder: Path) -> Kernel:
    return compile_kernel(function, TARGET, folder / "kernel.o")


def test_every_multiply_add_of_a_kernel_is_counted_and_its_tight_loop_is_shown(tmp_path: Path) -> None:
    measured = emulated.measure(compiled(product(), tmp_path), TARGET)
    assert measured.vector_fma == MACS // 4
    assert measured.vector_fma < measured.modelled_cycles < measured.instructions
    assert 0.3 < measured.share_of_floor(MACS, TARGET) < 1
    hottest = measured.hottest[0]
    assert hottest.share > 0.5
    assert sum(text.startswith("fmla") for text in hottest.listing) * hottest.executions <= measured.vector_fma


def test_the_same_kernel_costs_the_same_twice_and_with_scratch_memory_too(tmp_path: Path) -> None:
    for scratch in (False, True):
        kernel = compiled(product(scratch=scratch), tmp_path)
        first, second = (emulated.measure(kernel, TARGET, caches=True) for _ in range(2))
        assert first == second
        cold = emulated.measure(kernel, TARGET)
        assert cold.memory is None
        assert (cold.modelled_cycles, cold.instructions) == (first.modelled_cycles, first.instructions)


def test_misses_are_those_of_warm_caches(tmp_path: Path) -> None:
    """What fits in the second cache misses only the first, and what fits in the first misses nothing."""

    def misses(rows: int) -> tuple[int, int]:
        memory = emulated.measure(compiled(product(rows), tmp_path), TARGET, caches=True).memory
        assert memory is not None
        return memory.l1d_misses, memory.l2_misses

    small, large = misses(16), misses(1024)
    assert small[1] == large[1] == 0
    line = TARGET.caches.line_bytes
    assert large[0] >= 1024 * (INNER + COLUMNS) * 4 / line
    assert small[0] < 16 * (INNER + COLUMNS) * 4 / line


def test_a_kernel_that_is_called_with_other_shapes_is_a_reason_not_a_number(tmp_path: Path) -> None:
    kernel = compiled(product(), tmp_path)
    with pytest.raises(ExportError, match=r"it ended with status 1: .*Mismatched"):
        emulated.measure(Kernel(kernel.file, ((ROWS, INNER + 1), *kernel.shapes[1:])), TARGET)


def test_an_object_file_without_a_kernel_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "kernel.o").write_bytes(b"no object")
    with pytest.raises(ExportError, match="it does not link"):
        emulated.measure(Kernel(tmp_path / "kernel.o", ((1,),)), TARGET)


def test_only_float32_tensors_of_fixed_shapes_are_measured() -> None:
    indices = te.placeholder((4,), "int32", name="indices")
    function = te.create_prim_func([indices, te.compute((4,), lambda i: indices[i] + 1)])
    with pytest.raises(ValueError, match="float32 tensors only"):
        argument_shapes(function)
    assert argument_shapes(product()) == ((ROWS, INNER), (INNER, COLUMNS), (ROWS, COLUMNS))
