"""What all schedules begin with: a fused kernel as what comes before its reduction, the reduction, and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edge.kernels.gpu.device import Device

DATA, REDUCTION = tirx.IterVar.DataPar, tirx.IterVar.CommReduce
JOINT = "edge.joint"
"""Annotation of a block that takes its elements from several tensors: so many neighbours always lie in one of them."""
FULL = 0.85
"""A group with this share of its work-items is as good as full: then the weights that it reads should be neighbours."""


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
        joint: so many neighbouring input channels lie in one tensor; 0 where all do.
    """

    source: SBlockRV
    weights: SBlockRV
    reduction: SBlockRV
    result: SBlockRV
    joint: int


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


def single_reduction(scheduler: Schedule) -> tuple[list[SBlockRV], SBlockRV, SBlockRV]:
    """Take a fused function apart at its only reduction, whose result is kept in registers.

    Returns:
        The blocks before it, the reduction, and the block that writes the result; what lay between those is inlined.

    Raises:
        Refused: it has no reduction, or several.
    """
    blocks = scheduler.get_child_blocks(scheduler.get_sblock("root"))
    reductions = [index for index, block in enumerate(blocks) if REDUCTION in axes(scheduler, block)]
    if len(reductions) != 1:
        raise Refused("not one reduction")
    at = reductions[0]
    before, reduction, after = blocks[:at], blocks[at], blocks[at + 1 :]
    kinds = axes(scheduler, reduction)
    if kinds != sorted(kinds, key=[DATA, REDUCTION].index):
        raise Refused("a reduction outside of other axes")
    for block in after[:-1]:
        scheduler.compute_inline(block)
    if not after:
        return before, reduction, scheduler.cache_write(reduction, 0, "local")
    scheduler.set_scope(reduction, 0, "local")
    return before, reduction, after[-1]


def kernel(scheduler: Schedule) -> Kernel:
    """Take a fused function apart at its only reduction, a sum of products.

    Raises:
        Refused: it has no reduction, or several, or it is no sum of products of an input and weights.
    """
    before, reduction, result = single_reduction(scheduler)
    if len(scheduler.get(reduction).reads) != 2:
        raise Refused("not a sum of products")
    if before and not _is_read_first(scheduler, before[-1], reduction):
        raise Refused("what is computed before is not the first factor")
    joint = gcd(*(int(scheduler.get(block).annotations.get(JOINT, 0)) for block in before))
    weights = scheduler.cache_read(reduction, 1, "local")
    if before:
        *inlined, source = before
        for block in inlined:
            scheduler.compute_inline(block)
        scheduler.set_scope(source, 0, "local")
    else:
        source = scheduler.cache_read(reduction, 0, "local")
    return Kernel(source, weights, reduction, result, joint)


def _is_read_first(scheduler: Schedule, producer: SBlockRV, consumer: SBlockRV) -> bool:
    return scheduler.get(producer).writes[0].source.same_as(scheduler.get(consumer).reads[0].source)


def columns(width: int, most: int, vectors: int, device: Device) -> int:
    """How many columns of the result a work-item takes: as many as fit, unless too few work-items are left then.

    Args:
        width: of the result; it is divided without a rest.
        most: that fit in registers.
        vectors: of the whole result.
        device: says how many work-items keep it busy.
    """
    tiles = [tile for tile in range(1, max(1, most) + 1) if width % tile == 0]
    return max((tile for tile in tiles if vectors // tile >= device.items), default=1)


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
    """Bind tiles and vectors to groups: neighbouring work-items take neighbouring vectors of a tile.

    Both are divided without a rest: a work-item with nothing to do would cost all others a condition at every access.
    """
    count, depth = extent(scheduler, tiles), extent(scheduler, vectors)
    shapes = [
        (across, along)
        for across in range(1, device.group + 1)
        for along in range(1, device.group // across + 1)
        if depth % across == 0 and count % along == 0
    ]
    across, along = max(shapes, key=lambda shape: (min(shape[0] * shape[1] / device.group, FULL), shape[0]))
    block_x, thread_x = scheduler.split(vectors, [None, across])
    block_y, thread_y = scheduler.split(tiles, [None, along])
    scheduler.reorder(block_y, block_x, thread_y, thread_x)
    bound = {"blockIdx.y": block_y, "blockIdx.x": block_x, "threadIdx.y": thread_y, "threadIdx.x": thread_x}
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
