"""Two-dimensional convolution, linear layers and matrix products, accumulated in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.ops.window import pad_window
from edge.runtimes.mil.registry import Ints, operation


@operation("conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints = (1, 1),
    pad_type: str = "valid",
    pad: Ints = (0, 0, 0, 0),
    dilations: Ints = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of x (N, C, H, W) with weight (O, C / groups, KH, KW), padded with zeros."""
    if x.ndim != 4:
        raise MilError(f"only two-dimensional convolutions are implemented, x has rank {x.ndim}")
    extent = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))
    padded = pad_window(x, extent, strides, pad_type, pad, fill=0.0)
    return F.conv2d(padded, weight, bias, strides, 0, dilations, groups)


@operation("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Product of x (..., C) and the transpose of weight (O, C), plus bias (O,)."""
    return F.linear(x, weight, bias)


@operation("matmul")
def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Matrix product over the last two axes; the others broadcast."""
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)
