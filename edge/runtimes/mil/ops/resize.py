"""Resizing of the last two axes, by explicit sampling: MIL's grid formulas instead of torch's ``interpolate``.

Source: the notes of ``resize_bilinear`` and ``upsample_bilinear`` in coremltools' MIL operation reference.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.registry import operation


def _grid(size: int, target: int, sampling_mode: str) -> Tensor:
    """Where on [0, size - 1] each of the ``target`` outputs samples, float64 of shape (target,)."""
    steps = torch.arange(target, dtype=torch.float64)
    if sampling_mode == "ALIGN_CORNERS" and target == 1:
        return torch.full((1,), (size - 1) / 2, dtype=torch.float64)
    if sampling_mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        grid = steps * ((size - 1) / max(target - 1, 1))
    elif sampling_mode == "DEFAULT":
        grid = steps * (size / target)
    elif sampling_mode == "OFFSET_CORNERS":
        grid = (steps + 0.5) * (max(1, size - 1) / target)
    elif sampling_mode == "UNALIGN_CORNERS":
        grid = (steps + 0.5) * (size / target) - 0.5
    else:
        raise MilError(f"unknown sampling_mode {sampling_mode}")
    return grid.clamp(0, size - 1)


def _interpolate(x: Tensor, axis: int, grid: Tensor) -> Tensor:
    """Linear interpolation of x along one axis at the grid's points."""
    lower = grid.floor().long()
    upper = (lower + 1).clamp(max=x.shape[axis] - 1)
    weight = (grid - lower).to(x.dtype).reshape(-1, *(1,) * (-1 - axis))
    return torch.lerp(x.index_select(axis, lower), x.index_select(axis, upper), weight)


def _bilinear(x: Tensor, height: int, width: int, sampling_mode: str) -> Tensor:
    rows = _interpolate(x, -2, _grid(x.shape[-2], height, sampling_mode))
    return _interpolate(rows, -1, _grid(x.shape[-1], width, sampling_mode))


@operation("resize_bilinear")
def resize_bilinear(
    x: Tensor, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    """To a given size."""
    return _bilinear(x, target_size_height, target_size_width, sampling_mode)


@operation("upsample_bilinear")
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """By factors; the grid follows from the rounded size, not from the factor."""
    half = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and half:
        raise MilError("align_corners with half_pixel_centers has no meaning")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half else "DEFAULT"
    height = math.floor(x.shape[-2] * scale_factor_height)
    return _bilinear(x, height, math.floor(x.shape[-1] * scale_factor_width), mode)


@operation("upsample_nearest_neighbor")
def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float = 1.0, scale_factor_width: float = 1.0) -> Tensor:
    """By whole factors: MIL does not say which pixel is nearest for others, and converters disagree."""
    if not (scale_factor_height.is_integer() and scale_factor_width.is_integer()):
        raise MilError(f"factors {scale_factor_height} and {scale_factor_width} are not whole")
    rows = x.repeat_interleave(int(scale_factor_height), dim=-2)
    return rows.repeat_interleave(int(scale_factor_width), dim=-1)
