"""XNNPACK's int8 operators against their quantisation simulation, each alone: within one quantum, everywhere.

In a deep network the rare elements that round the other way feed the next layer, and its outputs drift apart by several
quanta without any operator being wrong. So this is where lowering error is told from quantisation error.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional as F

from edge.backends.executorch_partitioner import xnnpack_partitioner
from edge.backends.executorch_quantize import RANGE_RULES, RangeRule, observe, quantise, with_observers
from edge.backends.executorch_simulation import PreparedSimulation

RULE = "histogram"


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


def small_weights() -> nn.Module:
    """Among them a channel of zeros, which is its bias alone."""
    conv = nn.Conv2d(16, 32, 1)
    conv.weight.data *= 0.01
    conv.weight.data[3] = 0
    return conv


NETWORKS = {
    "pointwise": lambda: nn.Conv2d(16, 32, 1),
    "partial convolution": PartialConv,
    "shortcut": Shortcut,
    "pool": lambda: nn.AdaptiveAvgPool2d(1),
    "gelu": lambda: nn.Sequential(nn.Conv2d(16, 32, 1), nn.GELU(), nn.Conv2d(32, 16, 1)),
    "relu": lambda: nn.Sequential(nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 16, 1)),
    "linear": Linear,
    "small weights": small_weights,
}


def quantum(program: ExportedProgram) -> float:
    """Of the output: the scale its last dequantise multiplies with."""
    (output,) = program.graph.output_node().args[0]
    return output.args[1]


def against_float_db(network: nn.Module) -> float:
    """SQNR of the simulation."""
    samples = [(torch.randn(1, 16, 8, 8),) for _ in range(8)]
    observed = observe(with_observers(torch.export.export(network.eval(), samples[0]), RULE), RULE, samples)
    simulation = PreparedSimulation(observed, samples, {})
    return min(simulation.sqnr_db(frozenset(), range(len(samples))))


def test_small_weights_get_all_steps_of_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = small_weights()
    network.bias.data *= 0
    assert against_float_db(network) > 35
    configuration = get_symmetric_quantization_config(is_per_channel=True)
    monkeypatch.setitem(RANGE_RULES, RULE, RangeRule(configuration, reaches_far=False))
    assert against_float_db(network) < 30, "XNNPACK's own configuration gives them ten"


@pytest.mark.parametrize("name", NETWORKS)
def test_within_one_quantum_of_the_simulation(name: str) -> None:
    torch.manual_seed(0)
    samples = [(torch.randn(1, 16, 8, 8),) for _ in range(8)]
    observed = observe(with_observers(torch.export.export(NETWORKS[name]().eval(), samples[0]), RULE), RULE, samples)
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
