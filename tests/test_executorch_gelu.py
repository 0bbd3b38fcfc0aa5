"""XNNPACK's own partitioner computes the tanh form of GELU as the erf form, silently; ours leaves it to another kernel.

The day the first case fails, XNNPACK has mended it, and ours may delegate it again.
"""

from __future__ import annotations

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from torch import nn
from torch.nn import functional as F

from conftest import Sqnr
from edge.backends.executorch_partitioner import xnnpack_partitioner


@pytest.mark.parametrize(
    ("partitioner", "computed"), [(XnnpackPartitioner, "none"), (xnnpack_partitioner, "tanh")], ids=["theirs", "ours"]
)
def test_gelu_in_its_tanh_form(partitioner: type[XnnpackPartitioner], computed: str, sqnr: Sqnr) -> None:
    x = torch.linspace(-4, 4, 256).reshape(1, 4, 8, 8)
    program = torch.export.export(nn.GELU(approximate="tanh"), (x,))
    executable = to_edge_transform_and_lower(program, partitioner=[partitioner()]).to_executorch()
    loaded = Runtime.get().load_program(executable.buffer)
    (output,) = loaded.load_method("forward").execute([x])
    quality = {form: sqnr(F.gelu(x.double(), approximate=form).numpy(), output.numpy()) for form in ("none", "tanh")}
    assert max(quality, key=quality.__getitem__) == computed
    assert quality[computed] >= 100 > min(quality.values())


@pytest.mark.parametrize("partitioner", [XnnpackPartitioner, xnnpack_partitioner], ids=["theirs", "ours"])
def test_gelu_in_its_erf_form_is_delegated(partitioner: type[XnnpackPartitioner]) -> None:
    program = torch.export.export(nn.GELU(), (torch.zeros(1, 4, 8, 8),))
    lowered = to_edge_transform_and_lower(program, partitioner=[partitioner()]).exported_program()
    assert [node.name for node in lowered.graph.find_nodes(op="get_attr", target="lowered_module_0")] == [
        "lowered_module_0"
    ]
