"""Take a softmax over the last axis of many as one over the rows of a matrix.

    softmax(x)  ->  reshape(softmax(reshape(x, (R, N))))

XNNPACK reads a tensor of four axes that a convolution made with its channels last, and ExecuTorch 1.5.1 then takes the
softmax over them: another function, and no error. A matrix has no channels. Left to ExecuTorch's own kernels the
softmax is right, but slow, and cuts the program.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from edge.lowering.graph import argument, is_call, replace, shape
from edge.lowering.rewrite import Rewrite

RESHAPE, SOFTMAX = torch.ops.aten.reshape.default, torch.ops.aten.softmax.int


def match(module: GraphModule, node: Node) -> Node | None:
    """A softmax of a tensor with three axes at least, over the last."""
    if not is_call(node, SOFTMAX) or len(shape(node)) < 3:
        return None
    return node if argument(node, "dim") in (-1, len(shape(node)) - 1) else None


def check(module: GraphModule, softmax: Node) -> str | None:
    """It must not change the type on the way."""
    return "it converts the type too" if argument(softmax, "dtype") is not None else None


def apply(module: GraphModule, softmax: Node) -> None:
    """Reshape, softmax, reshape back."""
    rows = softmax.meta["val"].flatten(0, -2)
    with module.graph.inserting_before(softmax):
        matrix = module.graph.call_function(RESHAPE, (argument(softmax, "self"), list(rows.shape)))
        over_rows = module.graph.call_function(SOFTMAX, (matrix, -1))
        restored = module.graph.call_function(RESHAPE, (over_rows, list(shape(softmax))))
    matrix.meta["val"] = over_rows.meta["val"] = rows
    replace(softmax, restored)


REWRITE = Rewrite("softmax_over_rows", "softmax(x)  ->  reshape(softmax(reshape(x, (R, N))))", match, check, apply)
