"""Normalisation and softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from edge.runtimes.mil.registry import Ints, operation


@operation("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta``, each of shape (C,) along axis 1 of x."""
    channels = (-1, *(1 for _ in x.shape[2:]))
    y = (x - mean.reshape(channels)) / torch.sqrt(variance.reshape(channels) + epsilon)
    return _affine(y, gamma, beta, channels)


@operation("instance_norm")
def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    """Normalise every channel of every sample over its positions; gamma and beta (C,)."""
    y = _standardized(x, tuple(range(2, x.ndim)), epsilon)
    return _affine(y, gamma, beta, (-1, *(1 for _ in x.shape[2:])))


@operation("layer_norm")
def layer_norm(
    x: Tensor, axes: Ints, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """Normalise over the given axes; gamma and beta have the shape of x along them."""
    normalized = tuple(sorted(a % x.ndim for a in axes))
    shape = tuple(n if axis in normalized else 1 for axis, n in enumerate(x.shape))
    return _affine(_standardized(x, normalized, epsilon), gamma, beta, shape)


@operation("softmax")
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """``exp(x)`` over its sum along one axis."""
    return torch.softmax(x, axis)


def _standardized(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + epsilon)


def _affine(y: Tensor, gamma: Tensor | None, beta: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    if gamma is not None:
        y = y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)
