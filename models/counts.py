"""What a network holds and what it computes: parameters and multiply-accumulates."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edge.lowering import reparameterisation


def parameters(network: nn.Module) -> int:
    """Trainable values; running statistics do not count."""
    return sum(parameter.numel() for parameter in network.parameters())


def parameters_folded(network: nn.Module, shape: Sequence[int]) -> int:
    """Trainable values once branches are merged and every BatchNorm behind a convolution is folded into it.

    A fold removes the norm's scale and shift and leaves the convolution with a bias. A norm on anything else, such as
    the sum at the end of a stage, keeps its two values per channel.

    Args:
        network: any module that takes one tensor; it is not changed.
        shape: of the input, batch first.
    """
    twin, _ = reparameterisation.merged(_on_meta(network))
    total = parameters(twin)
    convolved: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # holds the tensor, or its id could be another's later
    saved = 0

    def remember(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        convolved[id(output)] = (module, output)

    def fold(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal saved
        if id(inputs[0]) in convolved:
            convolution, _ = convolved[id(inputs[0])]
            bias = 0 if convolution.bias is not None else convolution.out_channels
            saved += sum(parameter.numel() for parameter in module.parameters()) - bias

    for module in twin.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(remember)
        elif isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(fold)
    with torch.no_grad():
        twin(torch.empty(tuple(shape), device="meta", dtype=torch.float64))
    return total - saved


def macs(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates of the convolutions, linear layers and matrix products for one input of this shape.

    Args:
        network: any module that takes one tensor; it is not changed.
        shape: of the input, batch first.
    """
    twin = _on_meta(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(torch.empty(tuple(shape), device="meta"))
    return counter.get_total_flops() // 2


def _on_meta(network: nn.Module) -> nn.Module:
    """A copy with shapes and no values, so that counting the largest network takes no memory and no time."""
    values = [*network.parameters(), *network.buffers()]
    without: dict[int, Tensor] = {}
    for value in values:
        empty = torch.empty_like(value, device="meta")
        without[id(value)] = nn.Parameter(empty) if isinstance(value, nn.Parameter) else empty
    return copy.deepcopy(network, without).eval()
