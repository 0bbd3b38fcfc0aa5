"""The memory of a library as it is noted, against a count by hand and against what the library asks for as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import tvm
from network_rig import CORE, HOST, by_rule, rewritten
from torch import nn
from tvm import relax

from edge.backends.tvm import library, memory, program

FLOAT32_BYTES = 4


def planned(network: nn.Module, image: torch.Tensor, folder: Path) -> memory.Plan:
    module, _ = library.schedule(program.fuse(rewritten(network.eval(), image).module), CORE, by_rule)
    return library.write(module, HOST, folder / "library.so")


class Chain(nn.Module):
    """Linear layers of a hundred rows, each with another width, and none with a bias."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(before, after, bias=False) for before, after in pairwise(widths)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.parametrize("widths", [(8, 64, 16, 64, 8), (8, 16, 32, 64, 32), (4, 512, 4)], ids=str)
def test_a_chain_needs_two_neighbours_at_a_time(widths: tuple[int, ...], tmp_path: Path) -> None:
    """The plan shares storages between tensors of one size or a smaller: it may need more, but no more than all."""
    plan = planned(Chain(widths), torch.randn(100, widths[0]), tmp_path)
    tensors = [100 * width * FLOAT32_BYTES for width in widths[1:]]
    neighbours = max(map(sum, pairwise(tensors)))
    own = max(plan.scratch.values())
    assert own < 1024 * len(plan.scratch)
    assert neighbours <= plan.peak <= sum(tensors) + own
    assert len(plan.calls) == len(tensors)


ALLOCATE = "vm.builtin.alloc_storage"


@contextmanager
def requests() -> Iterator[list[int]]:
    """The bytes of every storage that TVM's virtual machine allocates."""
    original, sizes = tvm.get_global_func(ALLOCATE), []

    def allocate(machine: Any, shape: Any, *rest: Any) -> Any:
        sizes.append(int(shape[0]))
        return original(machine, shape, *rest)

    tvm.register_global_func(ALLOCATE, allocate, override=True)
    try:
        yield sizes
    finally:
        tvm.register_global_func(ALLOCATE, original, override=True)


def test_the_library_asks_for_what_the_plan_says(tmp_path: Path) -> None:
    """All storages of this chain are in use while its second layer runs but the last, smallest one."""
    image = torch.randn(100, 8)
    plan = planned(Chain((8, 64, 16, 64, 8)), image, tmp_path)
    with requests() as sizes:
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "library.so")), tvm.cpu())
        machine["main"](tvm.runtime.tensor(image.numpy()))
    assert len(sizes) == 3
    assert max(call.storages for call in plan.calls) == sum(sizes) - min(sizes)


def test_tensors_that_live_at_different_times_share_a_storage(tmp_path: Path) -> None:
    widths = (8, 64, 16, 64, 16, 64, 8)
    plan = planned(Chain(widths), torch.randn(100, 8), tmp_path)
    assert max(call.storages for call in plan.calls) == 100 * (64 + 16) * FLOAT32_BYTES


def test_a_convolutions_scratch_image_is_counted(tmp_path: Path) -> None:
    plan = planned(nn.Conv2d(16, 8, 3, padding=1), torch.randn(1, 16, 20, 30), tmp_path)
    (convolution,) = (size for name, size in plan.scratch.items() if name.startswith("convolution"))
    scratch = 22 * 32 * 16 * FLOAT32_BYTES
    assert scratch <= convolution < scratch + 1024


class Several(nn.Module):
    """Two results, the first of which is there long before the last kernel runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 256), nn.Linear(256, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        early = self.first(x)
        return early, self.third(self.second(early))


def test_a_result_is_in_use_until_the_end(tmp_path: Path) -> None:
    plan = planned(Several(), torch.randn(100, 8), tmp_path)
    tensors = {name: 100 * width * FLOAT32_BYTES for name, width in (("early", 256), ("second", 16), ("last", 8))}
    assert [call.storages for call in plan.calls][-1] == sum(tensors.values())
