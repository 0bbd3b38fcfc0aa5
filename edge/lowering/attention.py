"""Attention in a graph: its int8 costs more than a convolution's, and the targets' gates know it."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from edge.lowering.graph import is_call

SOFTMAX = (torch.ops.aten.softmax.int, torch.ops.aten._softmax.default)
PRODUCTS = (
    torch.ops.aten.matmul.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.einsum.default,
    torch.ops.aten.baddbmm.default,
)


def has_attention(program: ExportedProgram) -> bool:
    """Whether a softmax weighs values: a matrix product reads it. A classifier's last softmax does not count."""
    weighing = {node for node in program.graph.nodes if is_call(node, *SOFTMAX)}
    for node in program.graph.nodes:  # in the order of computation
        if weighing.intersection(node.all_input_nodes):
            if is_call(node, *PRODUCTS):
                return True
            weighing.add(node)
        elif is_call(node, torch.ops.aten.scaled_dot_product_attention.default):
            return True
    return False
