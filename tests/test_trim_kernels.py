"""Taps that are zero or never meet the image go, whoever's network it is; all others stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from shiftwise_tables import draw
from test_lowering import Sequence, outcome
from torch import nn

from edge.lowering import Lowered, lower
from edge.models.shiftwise import Block, Config


def trimmed(conv: nn.Conv2d, size: tuple[int, int]) -> tuple[Lowered, tuple[int, ...]]:
    """What becomes of a convolution on an image of this size; proven on the way."""
    samples = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    result = lower(Sequence(conv).eval(), samples)
    (node,) = (node for node in result.program.graph.nodes if str(node.target).startswith("aten.conv"))
    return result, tuple(node.args[1].meta["val"].shape[2:])


@pytest.mark.parametrize(
    ("conv", "size", "kernel"),
    [
        (nn.Conv2d(3, 3, 31, padding=15, groups=3), (14, 14), (27, 27)),
        (nn.Conv2d(3, 3, (3, 51), padding=(1, 25), groups=3), (56, 28), (3, 51)),
        (nn.Conv2d(3, 3, (3, 51), padding=(1, 25), groups=3), (1, 7), (1, 13)),
        (nn.Conv2d(3, 4, 5, padding=2, stride=2), (2, 2), (3, 3)),
        (nn.Conv2d(3, 4, 7, padding=9, dilation=3), (6, 7), (3, 5)),
        (nn.Conv2d(3, 4, 9, padding="same", bias=False), (3, 20), (5, 9)),
        (nn.Conv2d(3, 4, 9, padding=1), (9, 9), (9, 9)),
    ],
)
def test_what_lies_outside_the_image_goes(conv: nn.Conv2d, size: tuple[int, int], kernel: tuple[int, int]) -> None:
    result, left = trimmed(conv, size)
    assert left == kernel
    assert outcome(result, "trim_kernels").matches == (left != conv.kernel_size)


@torch.no_grad()
def test_zeros_at_the_ends_go_as_far_as_both_sides_have_them() -> None:
    conv = nn.Conv2d(3, 3, (3, 11), padding=(1, 5), groups=3)
    conv.weight[..., :3] = conv.weight[..., -2:] = 0
    assert trimmed(conv, (32, 32))[1] == (3, 7)


@torch.no_grad()
def test_of_a_kernel_of_zeros_one_tap_is_left() -> None:
    conv = nn.Conv2d(3, 3, 5, padding=2)
    conv.weight.zero_()
    assert trimmed(conv, (8, 8))[1] == (1, 1)


@torch.no_grad()
def test_strips_of_a_sparse_operator_end_where_its_last_filter_ends() -> None:
    """Without the filters that reach farthest, what is left of 19 taps is 13."""
    drawn = draw(8, 19)
    in_order = torch.arange(drawn.filters).expand_as(drawn.across)
    block = Block(replace(drawn, across=in_order, down=in_order), Config((), ())).eval()
    for path in block.shiftwise.paths:
        path.get_parameter("weight").unflatten(0, in_order.shape[1:])[:, [0, 5, 6]] = 0
    program = lower(Sequence(nn.Conv2d(3, 8, 1), block).eval(), torch.randn(2, 3, 32, 32)).program
    kernels = [tuple(weight.shape[2:]) for weight in program.state_dict.values() if weight.ndim == 4]
    assert [kernel for kernel in kernels if kernel != (1, 1)] == [(3, 13), (13, 3)]
