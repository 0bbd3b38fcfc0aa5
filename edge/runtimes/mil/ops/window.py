"""Padding of the operations that slide a window over the two spatial axes: convolution and pooling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edge.runtimes.mil.errors import MilError


def pad_window(
    x: Tensor, extent: tuple[int, ...], strides: tuple[int, ...], pad_type: str, pad: tuple[int, ...], fill: float
) -> Tensor:
    """Pad x (N, C, H, W) as MIL's ``pad_type`` says.

    Args:
        x: to be padded.
        extent: of the window, dilation included, (H, W).
        strides: of the window, (H, W).
        pad_type: "valid" (none), "custom" (``pad``), "same" (output of ceil(size / stride), an odd remainder at the
            end) or "same_lower" (the remainder at the start).
        pad: top, bottom, left, right; only for "custom".
        fill: the value of the padding.
    """
    if pad_type == "valid":
        return x
    if pad_type == "custom":
        top, bottom, left, right = pad
    elif pad_type in ("same", "same_lower"):
        (top, bottom), (left, right) = (
            _same(size, e, s, pad_type == "same_lower") for size, e, s in zip(x.shape[2:], extent, strides, strict=True)
        )
    else:
        raise MilError(f"unknown pad_type {pad_type}")
    return F.pad(x, (left, right, top, bottom), value=fill)


def _same(size: int, extent: int, stride: int, lower: bool) -> tuple[int, int]:
    """Padding (before, after) of one axis."""
    steps = -(-size // stride)
    total = max((steps - 1) * stride + extent - size, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)
