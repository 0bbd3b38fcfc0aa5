"""Layer normalisation over the last axis, which is the channels'.

layer_norm(x, scale, bias, axes=[-1])  ->  layer_norm(x, scale, bias)
"""

from __future__ import annotations

from math import prod

import numpy as np
from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant, shape
from edge.backends.tvm.patterns.matching import Match, Outcome, Refusal
from edge.kernels.normalisation import LayerNorm


def match(flow: Dataflow, value: relax.Var) -> Outcome:
    """The match that is a value."""
    call = flow.call(value, "relax.nn.layer_norm")
    if call is None:
        return None
    image, *given = call.args
    *rows, channels = extents = shape(image)
    attributes, weights = call.attrs, [constant(argument) for argument in given]
    if [int(axis) % len(extents) for axis in attributes.axes] != [len(rows)]:
        return Refusal("layer_norm", "over other axes than the channels, or not with the channels last")
    scale, bias = weights
    if scale is None or bias is None:
        return Refusal("layer_norm", "weights that are not constant")
    problem = LayerNorm(prod(rows), channels, float(attributes.epsilon))
    scale = scale if attributes.scale else np.ones_like(scale)
    bias = bias if attributes.center else np.zeros_like(bias)
    return Match(value, "layer_norm", problem, ((image, (problem.rows, channels)),), (scale, bias))
