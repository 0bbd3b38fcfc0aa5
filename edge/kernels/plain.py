"""The plain schedule: correct for any kernel, reasonable for all, tuned for none.

A kernel with one reduction (convolution, matrix product, mean) is tiled over its last two axes, which in NHWC are the
width and the channels. The tile of the result stays in vector registers while the reduction runs:

    parallel over the tiles of the result
        unrolled, vectorised:  tile = 0
        over the reduction     (a few steps unrolled)
            unrolled, vectorised:  tile += input * weights
        unrolled, vectorised:  result = epilogue(tile)

Everything else (padding, slices, concatenation, kernels with several reductions) runs block by block: parallel outside,
vectorised inside where the block allows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil

import tvm
from tvm import tirx
from tvm.s_tir import Schedule, ScheduleError
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edge.kernels.template import FLOAT32_BYTES, STACK_BYTES

REDUCTION_UNROLL = 4


@dataclass(frozen=True)
class Vectors:
    """A core's vector unit in float32: lanes of a register, and how many registers there are."""

    lanes: int
    registers: int


def schedule(function: tirx.PrimFunc, vectors: Vectors) -> tuple[tirx.PrimFunc, str]:
    """Schedule one kernel.

    Returns:
        The kernel, and how it was scheduled: "tiled", "by block", or "unscheduled" for a kernel that TVM refuses to
        transform either way, which is returned as it is, slow and right.
    """
    for name, way in (("tiled", _tiled), ("by block", _by_block)):
        scheduler = Schedule(tvm.IRModule({"main": function}))
        try:
            way(scheduler, vectors)
        except (ScheduleError, _Refused):
            continue
        return scheduler.mod["main"].with_attr("tirx.is_scheduled", True), name
    return function, "unscheduled"


class _Refused(Exception):
    """The kernel does not have the form this way of scheduling needs."""


def _extent(scheduler: Schedule, loop: LoopRV) -> int:
    extent = scheduler.get(loop).extent
    if not isinstance(extent, tirx.IntImm):
        raise _Refused("an axis without a fixed length")
    return int(extent)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _is_reduction(scheduler: Schedule, block: SBlockRV) -> bool:
    return any(axis.iter_type == tirx.IterVar.CommReduce for axis in scheduler.get(block).iter_vars)


def _is_copy(scheduler: Schedule, block: SBlockRV) -> bool:
    body = scheduler.get(block).body
    return isinstance(body, tirx.BufferStore) and isinstance(body.value, tvm.ir.TensorLoad)


def _tile(width: int, channels: int, vectors: Vectors) -> tuple[int, int]:
    """The tile with the most multiply-adds for each load that fits in the registers, as columns and channels."""

    def registers(columns: int, depth: int) -> int:
        return (columns + 1) * ceil(depth / vectors.lanes) + 1

    def intensity(tile: tuple[int, int]) -> float:
        columns, depth = tile
        return columns * depth / (columns + ceil(depth / vectors.lanes))

    # Half-filled registers cost permutes and spills: whole ones, where the channels have any.
    depths = _divisors(channels)
    whole = [depth for depth in depths if depth % vectors.lanes == 0]
    tiles = [
        (columns, depth)
        for columns, depth in product(_divisors(width), whole or depths)
        if registers(columns, depth) <= vectors.registers and columns * depth * FLOAT32_BYTES < STACK_BYTES
    ]
    return max(tiles, key=intensity)


def _tiled(scheduler: Schedule, vectors: Vectors) -> None:
    blocks = scheduler.get_child_blocks(scheduler.get_sblock("root"))
    reductions = [index for index, block in enumerate(blocks) if _is_reduction(scheduler, block)]
    if len(reductions) != 1:
        raise _Refused("not one reduction")
    before, (reduction, *after) = blocks[: reductions[0]], blocks[reductions[0] :]

    for block in before:
        if _is_copy(scheduler, block):
            scheduler.compute_inline(block)
        else:
            _by_row(scheduler, block, vectors)
    for block in after[:-1]:
        scheduler.compute_inline(block)
    result = after[-1] if after else scheduler.cache_write(reduction, 0, "global")

    loops = scheduler.get_loops(result)
    long = [index for index, loop in enumerate(loops) if _extent(scheduler, loop) > 1]
    if not long:
        raise _Refused("a result of one element")
    channels, columns = long[-1], long[-2] if len(long) > 1 else None
    width = 1 if columns is None else _extent(scheduler, loops[columns])
    column_tile, channel_tile = _tile(width, _extent(scheduler, loops[channels]), vectors)
    outer, inner = list(loops), []
    for axis, length in ((columns, column_tile), (channels, channel_tile)):
        if axis is not None:
            outer[axis], inside = scheduler.split(loops[axis], [None, length])
            inner.append(inside)
    # The weights of one tile of channels stay in the cache while the whole image goes by.
    outer.insert(0, outer.pop(channels))
    scheduler.reorder(*outer, *inner)
    tile = scheduler.fuse(*outer)
    scheduler.parallel(tile)
    scheduler.compute_at(reduction, tile, preserve_unit_loops=True)
    _registers(scheduler, inner, vectors)
    _reduce(scheduler, reduction, len(loops), vectors)


def _registers(scheduler: Schedule, loops: list[LoopRV], vectors: Vectors) -> None:
    """The loops of one tile as straight code: the last is vectorised, in whole registers where it fills them."""
    *unrolled, last = loops
    length = _extent(scheduler, last)
    if length > vectors.lanes and length % vectors.lanes == 0:
        pieces, last = scheduler.split(last, [None, vectors.lanes])
        unrolled.append(pieces)
    for loop in unrolled:
        scheduler.unroll(loop)
    scheduler.vectorize(last)


def _reduce(scheduler: Schedule, reduction: SBlockRV, rank: int, vectors: Vectors) -> None:
    """Order the loops of the reduction inside one tile: the reduction outside, the tile inside."""
    inside = scheduler.get_loops(reduction)[1:]
    spatial, steps = inside[:rank], inside[rank:]
    if not steps:
        raise _Refused("no reduction loop")
    last = _extent(scheduler, steps[-1])
    unrolled = max(divisor for divisor in _divisors(last) if divisor <= REDUCTION_UNROLL)
    *_, step = split = scheduler.split(steps[-1], [None, unrolled])
    steps = [*steps[:-1], *split]
    scheduler.reorder(*steps, *spatial)
    scheduler.unroll(step)
    long = [loop for loop in spatial if _extent(scheduler, loop) > 1]
    if not long:
        raise _Refused("a sum of everything, spread over the result")
    # The update is vectorised first: once it is apart from its start, TVM cannot see that it may be.
    _registers(scheduler, long, vectors)
    start = scheduler.decompose_reduction(reduction, steps[0])
    started = scheduler.get_loops(start)[1:]
    for loop in started[:-1]:
        scheduler.unroll(loop)
    scheduler.vectorize(started[-1])


def _by_block(scheduler: Schedule, vectors: Vectors) -> None:
    for block in scheduler.get_child_blocks(scheduler.get_sblock("root")):
        _by_row(scheduler, block, vectors)


def _by_row(scheduler: Schedule, block: SBlockRV, vectors: Vectors) -> None:
    """One block by itself: its outer axes parallel, a piece of its last axis vectorised where it is no reduction."""
    loops = scheduler.get_loops(block)
    kinds = [axis.iter_type for axis in scheduler.get(block).iter_vars]
    if len(kinds) != len(loops):
        raise _Refused("loops that are not the block's axes")
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar]
    if spatial != loops[: len(spatial)] or not spatial:
        raise _Refused("axes in another order")
    if len(spatial) == len(loops):
        length = _extent(scheduler, spatial[-1])
        piece = max(divisor for divisor in _divisors(length) if divisor <= 2 * vectors.lanes)
        *_, row = split = scheduler.split(spatial[-1], [None, piece])
        spatial = [*spatial[:-1], split[0]]
        scheduler.vectorize(row)
    scheduler.parallel(scheduler.fuse(*spatial))
