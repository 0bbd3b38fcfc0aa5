"""Convolution on a GPU: pointwise, partial, patch embedding, whatever sums over input channels; and matrix products.

    over groups of work-items, one work-item for some columns x 4 channels of the result
        tile = 0
        over the kernel's rows and columns, over the input channels in fours
            weights: 4 input channels x 4 output channels
            for each column: 4 inputs, and 4 x 4 multiply-adds
        result = epilogue(tile)

All loads are vectors: those of the weights lie side by side in neighbouring work-items, those of the inputs are the
same address for all work-items of a pixel. Nothing goes through local memory, which Mali has only in name.
"""

from __future__ import annotations

from math import gcd, prod

from tvm.s_tir import Schedule

from edge.kernels.gpu import blocks
from edge.kernels.gpu.blocks import Refused
from edge.kernels.gpu.device import Device

LONG_SUM = 256
"""Sums of so many products are worth sharing out among work-items where there is only one pixel of them."""


def schedule(scheduler: Schedule, device: Device) -> None:
    """Schedule a fused kernel whose reduction ends with the input channels.

    Raises:
        Refused: it is no convolution or matrix product, or one that shares out its sums better.
    """
    kernel = blocks.kernel(scheduler)
    rank = blocks.axes(scheduler, kernel.reduction).count(blocks.DATA)
    if rank < 2:
        raise Refused("no channels")
    steps = [blocks.extent(scheduler, loop) for loop in scheduler.get_loops(kernel.reduction)[rank:]]
    shape = [blocks.extent(scheduler, loop) for loop in scheduler.get_loops(kernel.result)]
    lanes, depth = blocks.vector(shape[-1], device), blocks.vector(gcd(steps[-1], kernel.joint), device)
    if prod(shape[:-1]) == 1 and prod(steps) >= LONG_SUM:
        raise Refused("one pixel of long sums")
    # In registers: a sum for each column, four weights, the input of one column, and an address or two.
    columns = blocks.columns(shape[-2], device.vectors - depth - 2, prod(shape) // lanes, device)

    item, _ = blocks.tile(scheduler, kernel.result, columns, device)
    scheduler.compute_at(kernel.reduction, item, preserve_unit_loops=True)
    inside = scheduler.get_loops(kernel.reduction)[-(rank + len(steps)) :]
    *outer, column, lane = inside[:rank]
    *window, channel = inside[rank:]
    fours, four = scheduler.split(channel, [None, depth])
    scheduler.reorder(*window, fours, *outer, column, four, lane)
    blocks.fetch(scheduler, kernel.weights, fours)
    blocks.fetch(scheduler, kernel.source, column)
    blocks.straight(scheduler, [column, four, lane])
    start = scheduler.decompose_reduction(kernel.reduction, window[0] if window else fours)
    blocks.straight(scheduler, scheduler.get_loops(start)[-rank:])
