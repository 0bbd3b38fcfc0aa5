"""XNNPACK's int8 operators against their quantisation simulation, each alone: within one quantum, everywhere.

In a deep network the rare elements that round the other way feed the next layer, and its outputs drift apart by several
quanta without any operator being wrong. So this is where lowering error is told from quantisation error.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional as F

from edge.backends.executorch_partitioner import xnnpack_partitioner
from edge.backends.executorch_quantize import observe, quantise, with_observers


class Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class PartialConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x[:, :4]), x[:, 4:]], 1)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.gelu(x).flatten(1))


NETWORKS = {
    "pointwise": lambda: nn.Conv2d(16, 32, 1),
    "partial convolution": PartialConv,
    "shortcut": Shortcut,
    "pool": lambda: nn.AdaptiveAvgPool2d(1),
    "gelu": lambda: nn.Sequential(nn.Conv2d(16, 32, 1), nn.GELU(), nn.Conv2d(32, 16, 1)),
    "relu": lambda: nn.Sequential(nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 16, 1)),
    "linear": Linear,
}


def quantum(program: ExportedProgram) -> float:
    """Of the output: the scale its last dequantise multiplies with."""
    (output,) = program.graph.output_node().args[0]
    return output.args[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_within_one_quantum_of_the_simulation(name: str) -> None:
    torch.manual_seed(0)
    samples = [(torch.randn(1, 16, 8, 8),) for _ in range(8)]
    observed = observe(with_observers(torch.export.export(NETWORKS[name]().eval(), samples[0])), samples)
    program, _ = quantise(observed, samples[0])
    executable = to_edge_transform_and_lower(program, partitioner=[xnnpack_partitioner()]).to_executorch()
    forward = (loaded := Runtime.get().load_program(executable.buffer)).load_method("forward")
    assert loaded.method_names == {"forward"}
    simulated = np.stack([program.module(check_guards=False)(*sample).detach().numpy() for sample in samples])
    got = np.stack([forward.execute(sample)[0].numpy() for sample in samples])
    quanta = np.round(np.abs(got - simulated) / quantum(program))
    assert quanta.max() <= 1
    assert (quanta == 0).mean() >= 0.98
    assert np.round(np.abs(np.flip(got, 2) - simulated) / quantum(program)).max() > 1, "swapped channels must show"
