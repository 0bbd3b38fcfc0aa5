"""Weights for a network that has no checkpoint: seeded values, and BatchNorm statistics from photographs.

They classify nothing, but every layer computes with values of a trained network's order, so that parity, size and speed
can be measured. Everything is drawn and computed so that another host gets the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

SPREAD = 0.02
"""Standard deviation of weights that a norm follows, as the authors initialise them. They draw from a normal
distribution truncated at ±2, a hundred standard deviations away, so a plain one is the same."""

_ENOUGH = 32  # images; a batch of them at 224 pixels takes 2 GiB in the largest variant


def seed_weights(network: nn.Module, seed: int = 0) -> None:
    """Give every parameter of the network a seeded value, in place.

    Weights are normal. A layer without a bias is one that a norm follows, which sets the size of its values: there the
    standard deviation is ``SPREAD``. With a bias, which is zero, it is 1 / √(inputs of a value): the size is kept.

    Norms get a scale from [0.5, 1.5) times the one they were made with, which is 1 unless the network starts a branch
    small, and a shift from [-0.5, 0.5): with 1 and 0, a fold that forgot either would go unnoticed. The range keeps
    activations near their normalised size, well inside float16 and without channels that int8 would round away. All
    other parameters (layer scales, attention biases, response norms) are from [-0.5, 0.5), for the same reason: many
    are trained from nearly nothing, and a branch times nearly nothing hides all its errors.

    The draws come from numpy's own generator, whose stream is the same on every processor; torch's global one is not
    touched.
    """
    generator = np.random.default_rng(seed)

    def fill(parameter: Tensor | None, values: Callable[[tuple[int, ...]], np.ndarray]) -> None:
        if parameter is not None:
            parameter.copy_(torch.from_numpy(values(tuple(parameter.shape))))

    def normal(deviation: float) -> Callable[[tuple[int, ...]], np.ndarray]:
        return lambda shape: generator.standard_normal(shape) * deviation

    def uniform(low: float, scale: np.ndarray | float = 1) -> Callable[[tuple[int, ...]], np.ndarray]:
        return lambda shape: np.asarray(scale * generator.uniform(low, low + 1, shape))

    with torch.no_grad():
        for module in network.modules():
            match module:
                case nn.Conv2d() | nn.Linear() if module.bias is None:
                    fill(module.weight, normal(SPREAD))
                case nn.Conv2d() | nn.Linear():
                    fill(module.weight, normal(module.weight[0].numel() ** -0.5))
                    fill(module.bias, np.zeros)
                case nn.BatchNorm2d() | nn.LayerNorm() if module.weight is not None:
                    fill(module.weight, uniform(0.5, scale=module.weight.double().numpy()))
                    fill(module.bias, uniform(-0.5))
                case _:
                    for parameter in module.parameters(recurse=False):
                        fill(parameter, uniform(-0.5))


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
