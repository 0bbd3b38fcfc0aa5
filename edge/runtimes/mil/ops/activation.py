"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.registry import operation

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def _register(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @operation(name)
    def activation(x: Tensor) -> Tensor:
        return function(x)


for _name, _function in _PLAIN.items():
    _register(_name, _function)


@operation("gelu")
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """``x * Phi(x)``: by erf (EXACT), by tanh, or as ``x * sigmoid(1.702 x)``."""
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise MilError(f"unknown mode {mode}")


@operation("leaky_relu")
def leaky_relu(x: Tensor, alpha: float = 0.01) -> Tensor:
    """``x`` where positive, ``alpha * x`` elsewhere."""
    return F.leaky_relu(x, alpha)


@operation("prelu")
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """Leaky ReLU with one alpha, shape (C,), per channel of x, shape (N, C, ...)."""
    return F.prelu(x, alpha)


@operation("sigmoid_hard")
def sigmoid_hard(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """``alpha * x + beta``, limited to 0 and 1."""
    return torch.clamp(alpha * x + beta, 0.0, 1.0)
