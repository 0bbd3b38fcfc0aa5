"""Depthwise convolution on a GPU: each channel of its own, so neighbouring channels are the vector.

    over groups of work-items, one work-item for some columns x 4 channels of the result
        tile = 0
        over the kernel's rows
            inputs: all that the tile's columns meet in this row, once
            for each of the kernel's columns: 4 weights, and 4 multiply-adds for each column of the tile
        result = epilogue(tile)

A row of inputs serves every column of the tile that meets it: K + columns - 1 loads instead of K x columns.
"""

from __future__ import annotations

from math import prod

from tvm.s_tir import Schedule
from tvm_ffi import structural_equal

from edge.kernels.gpu import blocks
from edge.kernels.gpu.blocks import Refused
from edge.kernels.gpu.device import Device

RANK, STEPS = 4, 3
LONGEST_ROW = 11
"""Kernels with longer rows would become too much straight code."""


def schedule(scheduler: Schedule, device: Device) -> None:
    """Schedule a fused depthwise convolution.

    Raises:
        Refused: it is none.
    """
    kernel = blocks.kernel(scheduler)
    loops = scheduler.get_loops(kernel.reduction)
    if len(loops) != RANK + STEPS or blocks.extent(scheduler, loops[-1]) != 1 or not _keeps_channels(scheduler, kernel):
        raise Refused("no depthwise convolution")
    reach = blocks.extent(scheduler, loops[-2])
    if reach > LONGEST_ROW:
        raise Refused("rows of the kernel that are too long")
    shape = [blocks.extent(scheduler, loop) for loop in scheduler.get_loops(kernel.result)]
    lanes = blocks.vector(shape[-1], device)
    # In registers: a sum for each column, and the inputs of a row, which are columns + reach - 1 at stride 1.
    columns = blocks.columns(shape[-2], (device.vectors + 3 - reach) // 2, prod(shape) // lanes, device)

    item, _ = blocks.tile(scheduler, kernel.result, columns, device)
    scheduler.compute_at(kernel.reduction, item, preserve_unit_loops=True)
    *outer, column, lane, row, across, channel = scheduler.get_loops(kernel.reduction)[-(RANK + STEPS) :]
    scheduler.reorder(row, *outer, across, channel, column, lane)
    blocks.fetch(scheduler, kernel.source, row)
    blocks.fetch(scheduler, kernel.weights, across)
    blocks.straight(scheduler, [across, channel, column, lane])
    start = scheduler.decompose_reduction(kernel.reduction, row)
    blocks.straight(scheduler, scheduler.get_loops(start)[-RANK:])


def _keeps_channels(scheduler: Schedule, kernel: blocks.Kernel) -> bool:
    """Whether the input's channel is the result's and, of length 1, the reduction's."""
    block = scheduler.get(kernel.reduction)
    expected = block.iter_vars[RANK - 1].var + block.iter_vars[-1].var
    return bool(structural_equal(block.reads[0].region[-1].min, expected))
