"""XNNPACK's partitioner without what it silently gets wrong in ExecuTorch 1.5.1; portable kernels get that right."""

from __future__ import annotations

import torch
from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
from executorch.backends.xnnpack.partition.config.generic_node_configs import GeluConfig, SoftmaxConfig
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from torch.export import ExportedProgram


class RowSoftmaxConfig(SoftmaxConfig):
    """Takes a softmax over the rows of a matrix: of more axes it may be one over a convolution's channels."""

    def check_constraints(self, node: torch.fx.Node, ep: ExportedProgram) -> bool:
        """Whether XNNPACK computes this node right."""
        return node.meta["val"].ndim == 2 and super().check_constraints(node, ep)


class ErfGeluConfig(GeluConfig):
    """Takes the erf form only: the delegate knows no other and would compute it for the tanh form too."""

    def check_constraints(self, node: torch.fx.Node, ep: ExportedProgram) -> bool:
        """Whether XNNPACK computes this node right."""
        return node.kwargs.get("approximate", "none") == "none" and super().check_constraints(node, ep)


def xnnpack_partitioner() -> XnnpackPartitioner:
    """No softmax but of matrices, no GELU but the erf form."""
    configs = [config for config in ALL_PARTITIONER_CONFIGS if config not in (SoftmaxConfig, GeluConfig)]
    return XnnpackPartitioner(configs=[*configs, RowSoftmaxConfig, ErfGeluConfig])
