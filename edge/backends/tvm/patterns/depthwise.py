"""Depthwise convolutions: the depthwise template, and the one for large kernels.

conv2d(x, w, groups=channels)  ->  depthwise(x, w), with what follows as its epilogue
                                   large_kernel(x, w), where the kernel is larger than 7 x 7 and the stride is 1
"""

from __future__ import annotations

import numpy as np
from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant, shape
from edge.backends.tvm.patterns.matching import Match, Outcome, Refusal, epilogue
from edge.kernels.depthwise import Depthwise
from edge.kernels.large_kernel import LargeKernel

SMALL = 7
"""Rows and columns of a kernel that is written out in one tile."""
UNROLLED = 121
"""Products of a kernel position that are: beyond, only large kernels of stride 1."""


def match(flow: Dataflow, value: relax.Var) -> Outcome:
    """The match that begins at a value."""
    call = flow.call(value, "relax.nn.conv2d")
    if call is None or call.attrs.groups == 1:
        return None
    attributes, weights = call.attrs, constant(call.args[1])
    batch, height, width, channels = shape(call.args[0])
    if attributes.groups != channels:
        return Refusal("conv2d", "groups of several channels")
    if weights is None:
        return Refusal("conv2d", "weights that are not constant")
    if len(weights) != channels:
        return Refusal("conv2d", "a depthwise convolution with several results for each channel")
    if batch != 1:
        return Refusal("conv2d", "a batch")
    if set(attributes.dilation) != {1}:
        return Refusal("conv2d", "a depthwise convolution with dilation")
    if len(strides := set(attributes.strides)) != 1:
        return Refusal("conv2d", "a depthwise convolution with two strides")
    kernel, stride = (int(weights.shape[1]), int(weights.shape[2])), int(strides.pop())
    small = max(kernel) <= SMALL
    if not small and stride != 1 and np.prod(kernel) > UNROLLED:
        return Refusal("conv2d", "a large depthwise kernel with a stride")
    after = epilogue(flow, value)
    top, left, bottom, right = map(int, attributes.padding)
    padding = (top, left, bottom, right)
    problem: Depthwise | LargeKernel
    if small or stride != 1:
        template = "depthwise"
        problem = Depthwise(height, width, channels, kernel, stride, padding, after.activation, after.order)
    else:
        template = "large_kernel"
        problem = LargeKernel(height, width, channels, kernel, padding, after.activation, after.order)
    bias = after.bias if after.bias is not None else np.zeros(channels, np.float32)
    shortcut = () if after.shortcut is None else ((after.shortcut, shape(value)),)
    activations = ((call.args[0], (1, height, width, channels)), *shortcut)
    return Match(after.result, template, problem, activations, (weights[..., 0].transpose(1, 2, 0), bias))
