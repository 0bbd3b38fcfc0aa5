"""What all schedules begin with: a fused kernel as what comes before its reduction, the reduction, and what follows."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edge.kernels.gpu.device import Device

DATA, REDUCTION = tirx.IterVar.DataPar, tirx.IterVar.CommReduce
ENOUGH = 0.9
"""A group that is filled to this share is full enough."""


class Refused(Exception):
    """The kernel does not have the form that a schedule needs."""


@dataclass(frozen=True)
class Kernel:
    """A fused kernel with one reduction, a sum of products.

    Attributes:
        source: the block that hands the input to the reduction: padding or a copy, with all before it inlined.
        weights: the block that hands the weights to it.
        reduction: its result is kept in registers.
        result: the block that writes the kernel's result; everything between the reduction and it is inlined.
    """

    source: SBlockRV
    weights: SBlockRV
    reduction: SBlockRV
    result: SBlockRV


def extent(scheduler: Schedule, loop: LoopRV) -> int:
    """The fixed length of a loop.

    Raises:
        Refused: it depends on something.
    """
    length = scheduler.get(loop).extent
    if not isinstance(length, tirx.IntImm):
        raise Refused("an axis without a fixed length")
    return int(length)


def axes(scheduler: Schedule, block: SBlockRV) -> list[int]:
    """The kinds of a block's axes, ``DATA`` or ``REDUCTION``."""
    return [axis.iter_type for axis in scheduler.get(block).iter_vars]


def kernel(scheduler: Schedule) -> Kernel:
    """Take a fused function apart at its only reduction.

    Raises:
        Refused: it has no reduction, or several, or it is no sum of products of an input and weights.
    """
    blocks = scheduler.get_child_blocks(scheduler.get_sblock("root"))
    reductions = [index for index, block in enumerate(blocks) if REDUCTION in axes(scheduler, block)]
    if len(reductions) != 1:
        raise Refused("not one reduction")
    at = reductions[0]
    before, reduction, after = blocks[:at], blocks[at], blocks[at + 1 :]
    kinds = axes(scheduler, reduction)
    if kinds != sorted(kinds, key=[DATA, REDUCTION].index) or len(scheduler.get(reduction).reads) != 2:
        raise Refused("not a sum of products")
    if before and not _is_read_first(scheduler, before[-1], reduction):
        raise Refused("what is computed before is not the first factor")
    for block in after[:-1]:
        scheduler.compute_inline(block)
    if after:
        scheduler.set_scope(reduction, 0, "local")
        result = after[-1]
    else:
        result = scheduler.cache_write(reduction, 0, "local")
    weights = scheduler.cache_read(reduction, 1, "local")
    if before:
        *inlined, source = before
        for block in inlined:
            scheduler.compute_inline(block)
        scheduler.set_scope(source, 0, "local")
    else:
        source = scheduler.cache_read(reduction, 0, "local")
    return Kernel(source, weights, reduction, result)


def _is_read_first(scheduler: Schedule, producer: SBlockRV, consumer: SBlockRV) -> bool:
    return scheduler.get(producer).writes[0].source.same_as(scheduler.get(consumer).reads[0].source)


def divisor(length: int, most: int) -> int:
    """The largest divisor of a length that is not larger than ``most``."""
    return max(candidate for candidate in range(1, max(1, most) + 1) if length % candidate == 0)


def vector(length: int, device: Device) -> int:
    """How many of so many neighbouring elements go into one vector: OpenCL has vectors of 2 and 4."""
    return next(lanes for lanes in (device.lanes, 2, 1) if length % lanes == 0)


def tile(scheduler: Schedule, block: SBlockRV, columns: int, device: Device) -> tuple[LoopRV, LoopRV]:
    """Give each work-item so many columns of a block's result, one vector of channels deep.

    Args:
        scheduler: of the kernel.
        block: its last axes are columns and channels; both are divided without a rest.
        columns: of a tile.
        device: says how large a group is.

    Returns:
        The innermost loop of the work-items, and the loop over the columns of one.
    """
    *outer, last, channels = scheduler.get_loops(block)
    tiles, column = scheduler.split(last, [None, columns])
    vectors, lane = scheduler.split(channels, [None, vector(extent(scheduler, channels), device)])
    scheduler.reorder(*outer, tiles, vectors, column, lane)
    item = _groups(scheduler, scheduler.fuse(*outer, tiles), vectors, device)
    scheduler.unroll(column)
    scheduler.vectorize(lane)
    return item, column


def _groups(scheduler: Schedule, tiles: LoopRV, vectors: LoopRV, device: Device) -> LoopRV:
    """Bind tiles and vectors to groups: neighbouring work-items take neighbouring vectors of a tile."""
    count, depth = extent(scheduler, tiles), extent(scheduler, vectors)

    def items(across: int) -> tuple[float, int]:
        along = min(device.group // across, count)
        return min(across * along / device.group, ENOUGH), across

    across = max((d for d in range(1, device.group + 1) if depth % d == 0), key=items)
    block_x, thread_x = scheduler.split(vectors, [None, across])
    block_y, thread_y = scheduler.split(tiles, [None, min(device.group // across, count)])
    scheduler.reorder(block_y, block_x, thread_y, thread_x)
    bound = {
        "blockIdx.y": block_y,
        "blockIdx.x": block_x,
        "threadIdx.y": thread_y,
        "threadIdx.x": thread_x,
    }
    for axis, loop in bound.items():
        scheduler.bind(loop, axis)
    return thread_x


def fetch(scheduler: Schedule, block: SBlockRV, at: LoopRV) -> None:
    """Compute a block, into registers, where its values are needed: straight code, its last axis one vector."""
    scheduler.compute_at(block, at, preserve_unit_loops=True)
    straight(scheduler, scheduler.get_loops(block)[-len(axes(scheduler, block)) :])


def straight(scheduler: Schedule, loops: list[LoopRV]) -> None:
    """Unroll loops and make the last one a vector."""
    *unrolled, lanes = loops
    for loop in unrolled:
        scheduler.unroll(loop)
    scheduler.vectorize(lanes)
