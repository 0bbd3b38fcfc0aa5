"""XNNPACK's own partitioner gets a softmax behind a convolution wrong, silently; ours leaves it to portable kernels.

In the form ``edge.formats`` asks for, over the rows of a matrix, XNNPACK takes all of the attention and gets it right.
The day the first case fails, XNNPACK has mended it, and ours may delegate it again.
"""

from __future__ import annotations

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from torch import Tensor, nn

from conftest import Sqnr
from edge.backends.executorch_delegation import delegation_notes
from edge.backends.executorch_partitioner import xnnpack_partitioner
from edge.formats import FORMATS
from edge.lowering import give_form, lower


class Attention(nn.Module):
    """What matters of it: talking heads, 1x1 convolutions over the heads before and after a softmax over the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, scores: Tensor) -> Tensor:
        return self.after(self.before(scores).softmax(-1))


@pytest.mark.parametrize(
    ("partitioner", "right"), [(XnnpackPartitioner, False), (xnnpack_partitioner, True)], ids=["theirs", "ours"]
)
def test_softmax_behind_a_convolution(partitioner: type[XnnpackPartitioner], right: bool, sqnr: Sqnr) -> None:
    torch.manual_seed(0)
    network, scores = Attention().eval(), 3 * torch.randn(1, 4, 9, 9)
    program = torch.export.export(network, (scores,))
    executable = to_edge_transform_and_lower(program, partitioner=[partitioner()]).to_executorch()
    loaded = Runtime.get().load_program(executable.buffer)
    (output,) = loaded.load_method("forward").execute([scores])
    with torch.no_grad():
        over_keys = network.double()(scores.double()).numpy()
        over_heads = network.after(network.before(scores.double()).softmax(1)).numpy()
    assert (sqnr(over_keys, output.numpy()) >= 100) is right
    assert (sqnr(over_heads, output.numpy()) >= 100) is not right


class Weighing(Attention):
    """With products before and behind, as attention has them."""

    def forward(self, scores: Tensor) -> Tensor:
        return super().forward(scores @ scores) @ scores


def test_in_the_form_for_executorch_xnnpack_takes_all_of_it(sqnr: Sqnr) -> None:
    torch.manual_seed(0)
    network, samples = Weighing().eval(), torch.randn(2, 4, 9, 9)
    (converter,) = FORMATS["executorch"].converters.values()
    program = give_form(lower(network, samples), converter.forms, samples).program
    edge_program = to_edge_transform_and_lower(program, partitioner=[xnnpack_partitioner()])
    notes = delegation_notes(edge_program.exported_program().graph_module)
    assert (notes["delegates"], notes["not_delegated"]) == (1, {})
    loaded = Runtime.get().load_program(edge_program.to_executorch().buffer)
    (output,) = loaded.load_method("forward").execute([samples[:1]])
    with torch.no_grad():
        assert sqnr(network.double()(samples[:1].double()).numpy(), output.numpy()) >= 100
