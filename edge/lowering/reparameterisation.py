"""Reparameterisation: what was trained as parallel branches becomes the one layer that computes the same.

    module with branches  ->  module.reparameterize()

A module that has branches to merge offers ``reparameterize()``, which returns the merged module and leaves the module
as it is. It is called in float64, so that sums of weights lose nothing. Only the module knows which of its parameters
belong together; whatever can be read off a graph is a ``Rewrite`` instead.
"""

from __future__ import annotations

import copy

from torch import nn

NAME = "reparameterisation"
ALGEBRA = "parallel branches  ->  the one layer that computes their sum"


def offered(network: nn.Module) -> bool:
    """Whether any module of a network has branches that it can merge."""
    return any(_offers(module) for module in network.modules())


def merged(network: nn.Module) -> tuple[nn.Module, int]:
    """A float64 copy of a network with every module merged that offers it, the outermost first.

    Args:
        network: in evaluation mode; not changed.

    Returns:
        The copy, and how many modules were merged.
    """
    return _merged(copy.deepcopy(network).double())


def _merged(module: nn.Module) -> tuple[nn.Module, int]:
    if _offers(module):
        return module.reparameterize().eval(), 1  # type: ignore[operator]
    count = 0
    for name, child in list(module.named_children()):
        replacement, merges = _merged(child)
        setattr(module, name, replacement)
        count += merges
    return module, count


def _offers(module: nn.Module) -> bool:
    return callable(getattr(module, "reparameterize", None))
