"""Reductions over axes and pooling over windows."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.ops.window import pad_window
from edge.runtimes.mil.registry import Ints, operation

_REDUCTIONS: dict[str, Callable[[Tensor, tuple[int, ...], bool], Tensor]] = {
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "reduce_max": torch.amax,
    "reduce_mean": torch.mean,
    "reduce_min": torch.amin,
    "reduce_sum": torch.sum,
}


def _register(name: str, function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> None:
    @operation(name)
    def reduce(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
        return function(x, tuple(range(x.ndim)) if axes is None else axes, keep_dims)


for _name, _function in _REDUCTIONS.items():
    _register(_name, _function)


@operation("reduce_argmax")
def reduce_argmax(x: Tensor, axis: int = -1, keep_dims: bool = False) -> Tensor:
    """Index of the largest element along one axis, the first among equals."""
    return torch.argmax(x, axis, keep_dims).to(torch.int32)


def _check_pool(x: Tensor, ceil_mode: bool) -> None:
    if x.ndim != 4:
        raise MilError(f"only two-dimensional pooling is implemented, x has rank {x.ndim}")
    if ceil_mode:
        raise MilError("ceil_mode is not implemented")


@operation("max_pool")
def max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints = (1, 1),
    pad: Ints = (0, 0, 0, 0),
    ceil_mode: bool = False,
) -> Tensor:
    """Largest element of each window of x (N, C, H, W); padding never wins."""
    _check_pool(x, ceil_mode)
    return F.max_pool2d(pad_window(x, kernel_sizes, strides, pad_type, pad, fill=-math.inf), kernel_sizes, strides)


@operation("avg_pool")
def avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints = (1, 1),
    pad: Ints = (0, 0, 0, 0),
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """Mean of each window of x (N, C, H, W); padding counts as zeros, or not at all."""
    _check_pool(x, ceil_mode)

    def mean(y: Tensor) -> Tensor:
        return F.avg_pool2d(pad_window(y, kernel_sizes, strides, pad_type, pad, fill=0.0), kernel_sizes, strides)

    return mean(x) / mean(torch.ones_like(x)) if exclude_padding_from_average else mean(x)
