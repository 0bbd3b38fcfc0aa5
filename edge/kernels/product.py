"""The register-tiled matrix product that pointwise and dense convolutions are made of.

    result[i, j] = epilogue(start[j] + sum over k of input(i, k) * weights[j, k], i, j)

``input`` is any expression, so a convolution is a product whose rows are positions of the image (implicit im2col):

    parallel over the tiles
        tile = start
        over the reduction, a few steps unrolled
            tile += one value of each row, broadcast, times one register of each column group
        result = epilogue(tile)

The reduction is a chain of *stretches*, so it may change its source, and what is left of an unrolled loop is a stretch
too. On cores that profit from it, each tile asks for its share of the panel of weights that comes next (``prefetch``).
Where the weights are more than the caches hold, regions below each other share the loop over the panels (``merging``),
so that each panel is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil
from typing import Protocol, TypeAlias

import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.script.ir_builder import tirx as T

from edge.kernels import merging, prefetch
from edge.kernels.activation import with_shortcut
from edge.kernels.core import Core
from edge.kernels.gemm import Region, Tile, regions
from edge.kernels.statements import Loops
from edge.kernels.template import FLOAT32_BYTES, WEIGHTS

Expression: TypeAlias = tvm.ir.Expr

LINE = 16
"""Elements of a cache's line, 64 bytes; of shorter ones some would be left out."""


@dataclass(frozen=True)
class Stretch:
    """A part of the reduction whose input is read in one way.

    Attributes:
        start: its first row of the weights.
        length: steps of one repetition.
        read: the input at a row of the result, a repetition and a step.
        repeats: how often the steps are gone through.
        period: rows of the weights from one repetition to the next.
    """

    start: int
    length: int
    read: Callable[[Expression, Expression, Expression], Expression]
    repeats: int = 1
    period: int = 0


class Product(Protocol):
    """What a problem says of its product: the result's size, and what is done with the sums."""

    @property
    def rows(self) -> int:
        """Positions of the result."""

    @property
    def outputs(self) -> int:
        """Channels of the result."""

    @property
    def reduction(self) -> int:
        """Steps of the sum for one element of the result."""

    @property
    def bias(self) -> bool:
        """Whether there is one."""

    @property
    def activation(self) -> str:
        """A name that ``edge.kernels.activation`` knows."""

    @property
    def shortcut(self) -> str:
        """Whether a tensor like the result is added "before" or "after" the activation, or "none"."""


@dataclass(frozen=True)
class Operands:
    """A product's arguments behind its input: shortcut (rows, outputs), weights and bias as packed, the result."""

    shortcut: tirx.Buffer | None
    weights: tirx.Buffer
    bias: tirx.Buffer | None
    result: tirx.Buffer


def argument(name: str, *shape: int) -> tirx.Buffer:
    """The next argument of the function that is being built, in float32."""
    return T.arg(name, T.buffer(shape, "float32"))


def operands(problem: Product, weights: tuple[int, ...] = ()) -> Operands:
    """The last arguments of the function that is being built; ``weights`` is their shape where it is not the plain."""
    size = (problem.rows, problem.outputs)
    return Operands(
        shortcut=argument("shortcut", *size) if problem.shortcut != "none" else None,
        weights=argument(WEIGHTS, *(weights or (problem.outputs * problem.reduction,))),
        bias=argument("bias", problem.outputs) if problem.bias else None,
        result=argument("result", *size),
    )


def write(
    problem: Product, given: Operands, stretches: Sequence[Stretch], tile: Tile, which: tuple[Expression, ...] = ()
) -> None:
    """Write the product into the function that is being built, for ``schedule`` to arrange.

    Args:
        problem: whose product it is.
        given: its arguments.
        stretches: the reduction.
        tile: the choice.
        which: of several products, whose weights and results have these indices before the others.
    """

    def start(column: Expression) -> Expression:
        return tirx.const(0, "float32") if given.bias is None else given.bias[column]

    def epilogue(total: Expression, row: Expression, column: Expression) -> Expression:
        other = None if given.shortcut is None else given.shortcut[row, column]
        return with_shortcut(problem.activation, problem.shortcut, total, other)

    steps = _in_steps(stretches, tile.unroll)
    by_column = sorted(regions(problem.rows, problem.outputs, tile), key=lambda region: region.column)
    for column, one_below_the_other in groupby(by_column, key=lambda region: region.column):
        with T.sblock(f"columns_{column}"):
            for region in one_below_the_other:
                _region(region, given.result, given.weights, problem.reduction, steps, start, epilogue, which)


def _in_steps(stretches: Sequence[Stretch], unroll: int) -> list[Stretch]:
    """Cut each stretch where the unrolled loop ends."""
    cut = []
    for stretch in stretches:
        rest = stretch.length % unroll
        whole = stretch.length - rest
        if whole:
            cut.append(replace(stretch, length=whole))
        if rest:
            read = stretch.read
            shifted = lambda row, repeat, step, read=read, whole=whole: read(row, repeat, step + whole)  # noqa: E731
            cut.append(replace(stretch, start=stretch.start + whole, length=rest, read=shifted))
    return cut


def _region(
    region: Region,
    result: tirx.Buffer,
    weights: tirx.Buffer,
    reduction: int,
    stretches: list[Stretch],
    start: Callable[[Expression], Expression],
    epilogue: Callable[[Expression, Expression, Expression], Expression],
    which: tuple[Expression, ...],
) -> None:
    shape, width = (region.rows, region.columns), region.tile_columns
    before: tirx.Buffer | None = None
    for number, stretch in enumerate(stretches):
        total = T.sblock_alloc_buffer(shape, "float32")
        with T.grid(*shape, stretch.repeats, stretch.length) as axes, T.sblock(f"sum_{region.name}_{number}"):
            i, j, repeat, step = T.axis.remap("SSRR", list(axes))
            panel, column = j // width, j % width
            row = stretch.start + repeat * stretch.period + step
            place = region.column * reduction + panel * (width * reduction) + row * width + column
            weight = weights[(*which, place)]
            with T.init():
                T.buffer_store(total, start(region.column + j) if before is None else before[i, j], [i, j])
            T.buffer_store(total, total[i, j] + stretch.read(region.row + i, repeat, step) * weight, [i, j])
        before = total
    assert before is not None
    with T.grid(*shape) as axes, T.sblock(f"result_{region.name}"):
        i, j = T.axis.remap("SS", list(axes))
        row, column = region.row + i, region.column + j
        T.buffer_store(result, epilogue(before[i, j], row, column), [*which, row, column])


def schedule(
    function: tirx.PrimFunc, problem: Product, stretches: Sequence[Stretch], tile: Tile, core: Core
) -> tirx.PrimFunc:
    """Arrange the loops of every region of a function that ``write`` wrote."""
    scheduler = Schedule(tvm.IRModule({"main": function}))
    steps = _in_steps(stretches, tile.unroll)
    (weights,) = (parameter for parameter in function.params if parameter.name == WEIGHTS)
    by_panel = tile.order == "weights" and FLOAT32_BYTES * problem.outputs * problem.reduction > core.l2_bytes // 2
    ahead: dict[str, prefetch.Elements] = {}
    for region in regions(problem.rows, problem.outputs, tile):
        result = scheduler.get_sblock(f"result_{region.name}")
        sums = [scheduler.get_sblock(f"sum_{region.name}_{index}") for index in range(len(steps))]
        together = by_panel and region.columns > region.tile_columns
        loops = _arrange(scheduler, region, result, sums, tile, together)
        if core.software_prefetch and tile.order == "weights" and region.down > 1:
            for index, loop in enumerate(loops):
                prefetch.mark(scheduler, loop, f"{region.name}_{index}")
                ahead[f"{region.name}_{index}"] = _next_panel(
                    weights, problem, region, steps, index, tile.unroll, together
                )
    arranged = prefetch.insert(scheduler.mod["main"], ahead) if ahead else scheduler.mod["main"]
    return merging.merge(arranged) if by_panel else arranged


def _next_panel(
    weights: tirx.Buffer,
    problem: Product,
    region: Region,
    steps: Sequence[Stretch],
    index: int,
    unroll: int,
    together: bool,
) -> prefetch.Elements:
    """What a pass through a stretch's loop asks for: an equal share, of all passes of a panel's tiles, of the next.

    Of several products, the panel after the last is the next product's first.
    """
    passes = [stretch.repeats * ceil(stretch.length / unroll) for stretch in steps]
    before, panel = sum(passes[:index]), region.tile_columns * problem.reduction
    share = ceil(panel / (sum(passes) * region.down))

    def elements(loops: Loops) -> Iterator[Expression]:
        *outside, tile, repeat, step = (loop.loop_var for loop in loops)
        if together:
            *outside, current = outside
        else:
            current, tile = tile // region.down, tile % region.down
        which = outside[-1:] if len(weights.shape) > 1 else []
        passed = tile * sum(passes) + before + repeat * loops[-1].extent + step
        first = region.column * problem.reduction + (current + 1) * panel
        for line in range(0, share, LINE):
            yield weights[(*which, first + passed * share + line)]

    return elements


def _arrange(
    scheduler: Schedule, region: Region, result: SBlockRV, sums: list[SBlockRV], tile: Tile, together: bool
) -> list[LoopRV]:
    """Arrange the loops of a region; returns each sum's loop over unrolled steps.

    Args:
        scheduler: of the function.
        region: whose loops.
        result: the block that writes the region.
        sums: the blocks that sum up its stretches.
        tile: the choice.
        together: the loop over panels is one with that of the region below or above.
    """
    row, column = scheduler.get_loops(result)
    tile_row, row = scheduler.split(row, [None, region.tile_rows])
    panel, column = scheduler.split(column, [None, region.tile_columns])
    group, lane = scheduler.split(column, [None, region.lanes])
    outer = (panel, tile_row) if tile.order == "weights" else (tile_row, panel)
    scheduler.reorder(*outer, row, group, lane)
    tiles = tile_row if together else scheduler.fuse(*outer)
    for partial in reversed(sums):
        scheduler.compute_at(partial, tiles, preserve_unit_loops=True)
    # Parallel before the sums are taken apart: TVM cannot see afterwards that it may be.
    if together:
        scheduler.parallel(panel)
        merging.mark(scheduler, panel, str(region.column))
    elif region.rows * region.columns > region.tile_rows * region.tile_columns:
        scheduler.parallel(tiles)
    outside = len(scheduler.get_loops(result)) - 3
    loops = [_accumulate(scheduler, partial, region.lanes, tile.unroll, outside) for partial in sums]
    _as_registers(scheduler, row, group, lane)
    return loops


def _accumulate(scheduler: Schedule, partial: SBlockRV, lanes: int, unroll: int, outside: int) -> LoopRV:
    row, column, repeat, step = scheduler.get_loops(partial)[outside:]
    group, lane = scheduler.split(column, [None, lanes])
    step, unrolled = scheduler.split(step, [None, min(unroll, _extent(scheduler, step))])
    scheduler.reorder(repeat, step, unrolled, row, group, lane)
    scheduler.unroll(unrolled)
    _as_registers(scheduler, row, group, lane)
    started = scheduler.decompose_reduction(partial, repeat)
    _as_registers(scheduler, *scheduler.get_loops(started)[outside:])
    return step


def _as_registers(scheduler: Schedule, row: LoopRV, group: LoopRV, lane: LoopRV) -> None:
    scheduler.unroll(row)
    scheduler.unroll(group)
    scheduler.vectorize(lane)


def _extent(scheduler: Schedule, loop: LoopRV) -> int:
    return int(scheduler.get(loop).extent)
