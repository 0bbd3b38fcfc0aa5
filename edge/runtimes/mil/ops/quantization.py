"""Quantisation of activations (iOS 17)."""

from __future__ import annotations

import torch
from torch import Tensor

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.registry import operation

_TYPES = {"int8": torch.int8, "uint8": torch.uint8}


def _along(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """A scale or a zero point as float32, shaped to broadcast along its axis of x."""
    if parameter.ndim == 0:
        return parameter.float()
    if axis is None:
        raise MilError("a scale per channel needs an axis")
    return parameter.float().reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


@operation("quantize", computes=False)
def quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    """``round(input / scale) + zero_point``, ties to even, limited to the type's range."""
    if output_dtype not in _TYPES:
        raise MilError(f"unsupported output_dtype {output_dtype}")
    limits = torch.iinfo(_TYPES[output_dtype])
    steps = torch.round(input.float() / _along(scale, input, axis))
    if zero_point is not None:
        steps = steps + _along(zero_point, input, axis)
    return steps.clamp(limits.min, limits.max).to(_TYPES[output_dtype])


@operation("dequantize", computes=False)
def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None) -> Tensor:
    """``scale * (input - zero_point)``, in the scale's type."""
    steps = input.float()
    if zero_point is not None:
        steps = steps - _along(zero_point, input, axis)
    return (steps * _along(scale, input, axis)).to(scale.dtype)
