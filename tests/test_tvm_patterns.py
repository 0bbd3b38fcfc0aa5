"""From Relax to kernels of ours: what the patterns take, what they refuse and why, and that nobody is left without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import Tensor, nn
from tvm import relax

from edge import targets
from edge.backends.tvm import library, program
from edge.backends.tvm.rewrite import Rewritten, rewrite
from edge.kernels.core import Core
from edge.kernels.template import Choice, Problem, Template
from edge.lowering import lower
from edge.models.fasternet import Config, FasterNet

CORE = Core.of(targets.load("x86-64"))


def by_rule(template: Template[Any, Any], problem: Problem) -> Choice:
    return template.default(problem, CORE)


def rewritten(network: nn.Module, image: Tensor, lowered: bool = False) -> Rewritten:
    exported = torch.export.export(network.eval(), (image,))
    if lowered:
        exported = lower(exported, image.repeat(2, 1, 1, 1), model="test").program
    return rewrite(program.read(exported), CORE, by_rule)


def outputs(found: Rewritten, image: Tensor) -> list[np.ndarray]:
    module, _ = library.schedule(program.fuse(found.module), CORE, by_rule)
    machine = relax.VirtualMachine(tvm.compile(module, target=tvm.target.Target({"kind": "llvm"})), tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(image.numpy()))
    return [tensor.numpy() for tensor in (result if not hasattr(result, "numpy") else [result])]


def test_every_operator_of_fasternet_but_the_mean_is_ours() -> None:
    torch.manual_seed(0)
    network = FasterNet(Config(16, (1, 1, 2, 1), "gelu", head_width=64, classes=10))
    found = rewritten(network, torch.randn(1, 3, 64, 64), lowered=True)
    assert found.kernels == {"partial": 5, "pointwise": 2 * 5 + 4 + 2}
    assert not found.refusals
    _, plain = library.schedule(program.fuse(found.module), CORE, by_rule)
    assert set(plain) == {"mean"}


class TwoReaders(nn.Module):
    """A pointwise convolution whose sum is read twice: before its activation, and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 10, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        total = self.conv(image)
        return total, torch.relu(total)


class Shortcuts(nn.Module):
    """A shortcut before the activation, as in ResNet, and the same value added to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

    def forward(self, image: Tensor) -> Tensor:
        total = self.second(torch.relu(self.first(image) + image))
        return total + total


class Refused(nn.Module):
    """A product of two computed tensors."""

    def forward(self, image: Tensor) -> Tensor:
        return image @ image.transpose(2, 3)


@pytest.mark.parametrize(
    ("network", "kernels"),
    [(TwoReaders(), {"pointwise": 1}), (Shortcuts(), {"pointwise": 2}), (Refused(), {})],
    ids=lambda value: type(value).__name__,
)
def test_what_is_taken_over_is_left_for_its_other_readers(network: nn.Module, kernels: dict[str, int]) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 6, 5, 7)
    found = rewritten(network, image)
    assert found.kernels == kernels
    with torch.no_grad():
        expected = network.double()(image.double())
    for got, exact in zip(outputs(found, image), expected if isinstance(expected, tuple) else [expected], strict=True):
        np.testing.assert_allclose(got, exact.numpy(), atol=1e-5)


def test_a_refusal_says_why() -> None:
    assert rewritten(Refused(), torch.randn(1, 6, 5, 7)).refusals == {"matmul: two tensors that are computed": 1}
