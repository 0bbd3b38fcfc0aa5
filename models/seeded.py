"""Weights for a network that has no checkpoint: seeded values, and BatchNorm statistics from photographs.

They classify nothing, but every layer computes with values of a trained network's order, so that parity, size and speed
can be measured. Everything is drawn and computed so that another host gets the same bits.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

SPREAD = 0.02
"""Standard deviation of the weights, as the authors initialise them. They draw from a normal distribution truncated at
±2, a hundred standard deviations away, so a plain one is the same."""

_ENOUGH = 32  # images; a batch of them at 224 pixels takes 2 GiB in the largest variant


def seed_weights(network: nn.Module, seed: int = 0) -> None:
    """Give every convolution, linear layer and BatchNorm of the network seeded values, in place.

    Weights are normal with the standard deviation ``SPREAD``, biases zero. A BatchNorm gets a scale from [0.5, 1.5) and
    a shift from [-0.5, 0.5): with the usual 1 and 0, a fold that forgot either would go unnoticed. The range keeps
    activations near their normalised size, well inside float16 and without channels that int8 would round away.

    Other parameters, such as a LayerNorm's or a layer scale, keep their initial values. The draws come from numpy's own
    generator, whose stream is the same on every processor; torch's global one is not touched.
    """
    generator = np.random.default_rng(seed)

    def fill(parameter: Tensor, values: np.ndarray) -> None:
        parameter.copy_(torch.from_numpy(values))

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                fill(module.weight, generator.standard_normal(tuple(module.weight.shape)) * SPREAD)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                fill(module.weight, generator.uniform(0.5, 1.5, module.num_features))
                fill(module.bias, generator.uniform(-0.5, 0.5, module.num_features))


def estimate_batch_norm(network: nn.Module, images: np.ndarray) -> None:
    """Set the running statistics of every BatchNorm to those of these images, in place.

    Each norm takes the mean and the (biased) variance of what reaches it and normalises with them, so that the
    statistics of all layers agree: in evaluation mode, on the same images, every norm gives exactly its own shift and
    scale. The pass runs in float64 on a copy and is rounded to float32 at the end, so that neither the number of
    threads nor the processor's instructions show in the result.

    Args:
        network: in any mode; left in evaluation mode. Without a BatchNorm only that happens.
        images: (N, 3, H, W) float32, preprocessed. Of more than 32 some are taken, at even distances.
    """
    network.eval()
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    if not norms:
        return
    twin = copy.deepcopy(network).double()

    def measure(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        norm.running_var, norm.running_mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)

    for name in norms:
        twin.get_submodule(name).register_forward_pre_hook(measure)
    chosen = images[:: -(-len(images) // _ENOUGH)]
    with torch.no_grad():
        twin(torch.from_numpy(chosen).double())
    for name, norm in norms.items():
        norm.load_state_dict(twin.get_submodule(name).state_dict())
