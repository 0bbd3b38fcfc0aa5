"""Every form of compressed weight that the evaluator decompresses: the values must be exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
import mil_files
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from edge.runtimes.mil import Program

generator = np.random.default_rng(0)

INT4, UINT1, UINT2, UINT4 = (types.nptype_from_builtin(t) for t in (types.int4, types.uint1, types.uint2, types.uint4))
SPARSE = generator.random((4, 6)) < 0.4
KEPT = int(SPARSE.sum())


@dataclass(frozen=True)
class Weight:
    """One compressed weight: how it is written, and the values it stands for."""

    operation: str
    build: Callable[[type], Any]
    expected: Callable[[], np.ndarray]
    opset: Any
    label: str = ""

    @property
    def name(self) -> str:
        return f"{self.operation}-{self.label or self.opset.name}"


def scattered(values: np.ndarray) -> np.ndarray:
    dense = np.zeros(SPARSE.shape)
    dense[SPARSE] = values
    return dense


INT8_DATA = generator.integers(-128, 128, (4, 6)).astype(np.int8)
INT4_DATA = generator.integers(-8, 8, (4, 6))
INDICES = generator.integers(0, 16, (4, 6))
PAIRS = generator.integers(0, 4, (2, 6))
PALETTE = np.arange(16) * 0.5 - 3
SCALE = np.array([0.5, 0.25, 2.0, 1.0])
LUT = PALETTE.reshape(1, 1, 16, 1)
COLUMN_LUT = np.stack([PALETTE, -PALETTE, 2 * PALETTE]).reshape(1, 3, 16, 1)
VECTOR_LUT = np.arange(8.0).reshape(1, 1, 4, 2)

WEIGHTS = [
    Weight(
        "constexpr_affine_dequantize",
        lambda t: mb.constexpr_affine_dequantize(
            quantized_data=INT8_DATA, zero_point=np.arange(4, dtype=np.int8), scale=SCALE.astype(t), axis=np.int32(0)
        ),
        lambda: SCALE[:, None] * (INT8_DATA - np.arange(4.0)[:, None]),
        ct.target.iOS16,
        "per channel",
    ),
    Weight(
        "constexpr_affine_dequantize",
        lambda t: mb.constexpr_affine_dequantize(
            quantized_data=INT8_DATA.view(np.uint8), zero_point=np.uint8(128), scale=t(0.5), axis=np.int32(0)
        ),
        lambda: 0.5 * (INT8_DATA.view(np.uint8) - 128.0),
        ct.target.iOS16,
        "per tensor",
    ),
    Weight(
        "constexpr_lut_to_dense",
        lambda t: mb.constexpr_lut_to_dense(
            # Two 4-bit indices a byte, the first in the low half.
            indices=(INDICES.reshape(-1, 2) @ [1, 16]).astype(np.uint8),
            lut=PALETTE.astype(t),
            shape=np.array([4, 6], np.uint32),
        ),
        lambda: PALETTE[INDICES],
        ct.target.iOS16,
    ),
    Weight(
        "constexpr_sparse_to_dense",
        lambda t: mb.constexpr_sparse_to_dense(
            nonzero_data=np.arange(1, KEPT + 1).astype(t),
            mask=np.packbits(SPARSE, bitorder="little"),
            shape=np.array([4, 6], np.uint32),
        ),
        lambda: scattered(np.arange(1, KEPT + 1)),
        ct.target.iOS16,
    ),
    Weight(
        "constexpr_blockwise_shift_scale",
        lambda t: mb.constexpr_blockwise_shift_scale(
            data=INT4_DATA.astype(INT4), scale=np.outer([0.5, 2.0], [1.0, 0.25, 3.0]).astype(t)
        ),
        # Two scales along the rows, three along the columns: blocks of 2 x 2.
        lambda: INT4_DATA * np.kron(np.outer([0.5, 2.0], [1.0, 0.25, 3.0]), np.ones((2, 2))),
        ct.target.iOS18,
        "int4 blocks",
    ),
    Weight(
        "constexpr_blockwise_shift_scale",
        lambda t: mb.constexpr_blockwise_shift_scale(
            data=INT8_DATA, scale=SCALE.reshape(4, 1).astype(t), offset=np.arange(4, dtype=np.int8).reshape(4, 1)
        ),
        lambda: SCALE[:, None] * (INT8_DATA - np.arange(4.0)[:, None]),
        ct.target.iOS18,
        "int8 offset",
    ),
    Weight(
        "constexpr_lut_to_dense",
        lambda t: mb.constexpr_lut_to_dense(indices=INDICES.astype(UINT4), lut=COLUMN_LUT.astype(t)),
        lambda: PALETTE[INDICES] * np.repeat([1.0, -1.0, 2.0], 2),
        ct.target.iOS18,
        "palette per two columns",
    ),
    Weight(
        "constexpr_lut_to_dense",
        lambda t: mb.constexpr_lut_to_dense(
            indices=PAIRS.astype(UINT2), lut=VECTOR_LUT.astype(t), vector_axis=np.int32(0)
        ),
        # Index k at row r stands for 2k in row 2r and 2k + 1 in row 2r + 1.
        lambda: np.stack([2.0 * PAIRS, 2.0 * PAIRS + 1], axis=1).reshape(4, 6),
        ct.target.iOS18,
        "vectors",
    ),
    Weight(
        "constexpr_sparse_to_dense",
        lambda t: mb.constexpr_sparse_to_dense(
            nonzero_data=np.arange(1, KEPT + 1).astype(t), mask=SPARSE.astype(UINT1)
        ),
        lambda: scattered(np.arange(1, KEPT + 1)),
        ct.target.iOS18,
    ),
    Weight(
        "constexpr_lut_to_sparse",
        lambda t: mb.constexpr_sparse_to_dense(
            **dict(
                zip(
                    ("mask", "nonzero_data"),
                    mb.constexpr_lut_to_sparse(
                        indices_mask=SPARSE.astype(UINT1),
                        indices_nonzero_data=INDICES[SPARSE].astype(UINT4),
                        lut=LUT.astype(t),
                    ),
                    strict=True,
                )
            )
        ),
        lambda: scattered(PALETTE[INDICES[SPARSE]]),
        ct.target.iOS18,
    ),
    Weight(
        "constexpr_sparse_blockwise_shift_scale",
        lambda t: mb.constexpr_sparse_to_dense(
            **dict(
                zip(
                    ("mask", "nonzero_data"),
                    mb.constexpr_sparse_blockwise_shift_scale(
                        data_mask=SPARSE.astype(UINT1),
                        nonzero_data=INT8_DATA[SPARSE],
                        scale=SCALE.reshape(4, 1).astype(t),
                    ),
                    strict=True,
                )
            )
        ),
        lambda: scattered((INT8_DATA * SCALE[:, None])[SPARSE]),
        ct.target.iOS18,
    ),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda weight: weight.name)
def test_compressed_weight(weight: Weight, dtype: type[np.floating], tmp_path: Path) -> None:
    """All values fit either type exactly, so the decompressed weight must be exact."""
    zeros = np.zeros((4, 6), dtype)
    package = mil_files.save(
        tmp_path / "m.mlpackage", [zeros], lambda x: mb.add(x=x, y=weight.build(dtype)), weight.opset
    )
    program = Program(package)
    assert weight.operation in program.counts
    (got,) = program({"x0": zeros}).values()
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.astype(np.float64), weight.expected().astype(dtype).astype(np.float64))
