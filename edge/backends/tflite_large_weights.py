"""Convolutions with more than 32 MiB of weights in int8.

ai-edge-quantizer rounds such a tensor in pieces, as rows of two axes, and leaves its scales with the four axes that the
weights had: ConvNeXt from `large` on ends in a ValueError. With two axes from the start, both agree.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
from ai_edge_quantizer import qtyping
from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor

_rounded: Callable[..., Any] = uniform_quantize_tensor.uniform_quantize


def rounded_as_rows() -> AbstractContextManager[Any]:
    """While it lasts, weights with a scale for each output, the first axis, are rounded as rows (outputs, others)."""
    return patch.object(uniform_quantize_tensor, "uniform_quantize", _by_rows)


def _by_rows(weights: np.ndarray, scales: qtyping.UniformQuantParams, *others: Any, **named: Any) -> np.ndarray:
    if weights.ndim <= 2 or scales.quantized_dimension != 0:
        return np.asarray(_rounded(weights, scales, *others, **named))
    rows = replace(scales, scale=scales.scale.reshape(-1, 1), zero_point=scales.zero_point.reshape(-1, 1))
    return np.asarray(_rounded(weights.reshape(len(weights), -1), rows, *others, **named)).reshape(weights.shape)
