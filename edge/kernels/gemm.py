"""The register-tiled matrix product that pointwise and dense convolutions are made of.

    result[i, j] = epilogue(start[j] + sum over k of input(i, k) * weights[j, k], i, j)

``input`` is any expression, so a convolution is a product whose rows are positions of the image (implicit im2col). A
tile of the result stays in vector registers while the whole reduction runs:

    parallel over the tiles
        tile = start
        over the reduction, a few steps unrolled
            tile += one value of each row, broadcast, times one register of each column group
        result = epilogue(tile)

On cores that profit from it, each tile asks for its share of the panel of weights that comes next (``prefetch``).

Rows and columns that fill no tile are a region of their own with a smaller tile, not a condition in a loop, and nothing
is padded. Where the weights are more than the caches hold, regions below each other share the loop over the panels, so
that each panel is read once. The reduction is a chain of *stretches*, so it may change its source, and what is left of
an unrolled loop is a stretch too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil
from typing import Protocol, TypeAlias

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.script.ir_builder import tirx as T

from edge.kernels import merging, prefetch
from edge.kernels.activation import with_shortcut
from edge.kernels.core import Core
from edge.kernels.statements import Loops
from edge.kernels.template import FLOAT32_BYTES, STACK_BYTES, WEIGHTS, Array, Choice

Expression: TypeAlias = tvm.ir.Expr


@dataclass(frozen=True)
class Tile(Choice):
    """How a product is computed.

    Attributes:
        rows: of the register tile.
        columns: of the register tile, a multiple of ``lanes``.
        lanes: of the vectors; fewer than the register has where the columns would leave half of it empty.
        unroll: steps of the reduction as straight code.
        order: what stays in the cache while the other goes by: a panel of "weights" or a tile's "rows".
    """

    rows: int
    columns: int
    lanes: int
    unroll: int
    order: str


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


@dataclass(frozen=True)
class Region:
    """A part of the result that is covered by equal tiles, from its first row and column on."""

    row: int
    rows: int
    tile_rows: int
    column: int
    columns: int
    tile_columns: int
    lanes: int

    @property
    def name(self) -> str:
        """Tells it from the kernel's other regions."""
        return f"{self.row}_{self.column}"

    @property
    def down(self) -> int:
        """Tiles below each other."""
        return self.rows // self.tile_rows


def regions(rows: int, columns: int, tile: Tile) -> Iterator[Region]:
    """Cut a result into regions of whole tiles: the body, the last rows, the last registers, the last lanes."""
    whole = columns - columns % tile.columns
    registers = columns - columns % tile.lanes
    for row, end, height in (
        (0, rows - rows % tile.rows, tile.rows),
        (rows - rows % tile.rows, rows, rows % tile.rows),
    ):
        for column, stop, width, lanes in (
            (0, whole, tile.columns, tile.lanes),
            (whole, registers, registers - whole, tile.lanes),
            (registers, columns, columns - registers, columns - registers),
        ):
            if end > row and stop > column:
                yield Region(row, end - row, height, column, stop - column, width, lanes)


def pack(weights: Array, tile: Tile) -> Array:
    """Weights (columns, reduction) as panels one after the other, each with a row of its columns for every step."""
    columns = {region.column: region for region in regions(1, len(weights), replace(tile, rows=1))}
    panels = [
        weights[start : start + region.tile_columns].T.ravel()
        for region in columns.values()
        for start in range(region.column, region.column + region.columns, region.tile_columns)
    ]
    return np.ascontiguousarray(np.concatenate(panels), dtype=np.float32)


def constants(weights: Array, tile: Tile, *bias: Array) -> tuple[Array, ...]:
    """A product's constants: the weights (outputs, reduction) packed, and the bias, if there is one, as it is."""
    return (pack(weights, tile), *(np.ascontiguousarray(values, dtype=np.float32) for values in bias))


# The space of choices and the rule for the default.

MOST_ROWS = 16
UNROLLS = (4, 8)
NEARLY = 1.1
"""Tiles whose estimate is within this factor of the best are choices."""
HIDDEN = 8
"""Independent multiply-adds that keep the pipes busy while each waits for the one before it: latency times pipes."""
PER_REGISTER, PER_TILE = 4, 24
"""Instructions that a tile needs beside its multiply-adds: to start and store each register, and for its addresses."""
SPARE = 2
"""Registers for what is on its way; with fewer, LLVM spills some of the tile."""


def space(rows: int, columns: int, reduction: int, core: Core) -> tuple[Tile, ...]:
    """The choices for a product, by the estimated number of instructions, the fewest first: that is the default.

    Vectors of half a register are among them where the columns would leave half of one empty, for cores whose pipes are
    that narrow.
    """
    choices: list[Tile] = []
    for lanes in (core.lanes, core.lanes // 2):
        if lanes < core.lanes and (columns % core.lanes == 0 or columns % lanes or lanes == 1):
            continue
        tiles = [
            Tile(height, groups * lanes, lanes, UNROLLS[0], "weights")
            for height in range(1, min(rows, MOST_ROWS) + 1)
            for groups in range(1, max(columns // lanes, 1) + 1)
            if _fits(height, groups, lanes, core)
        ]
        estimates = {tile: estimate(rows, columns, reduction, tile) for tile in tiles}
        best = min(estimates.values())
        choices += sorted((tile for tile in tiles if estimates[tile] <= NEARLY * best), key=estimates.__getitem__)
    return tuple(
        replace(tile, unroll=unroll, order=order)
        for tile in choices
        for unroll in UNROLLS
        for order in ("weights", "rows")
    )


def _fits(rows: int, groups: int, lanes: int, core: Core) -> bool:
    """Whether the registers hold the tile, a step's weights, and one value of each row or the one at hand."""
    values = 1 if core.loads_as_operand else rows + SPARE
    small = rows * groups * lanes * FLOAT32_BYTES < STACK_BYTES
    return rows * groups + groups + values <= core.registers and small


def estimate(rows: int, columns: int, reduction: int, tile: Tile) -> int:
    """Instructions of a product, with those that the pipes wait for."""
    total = 0
    for region in regions(rows, columns, tile):
        groups = ceil(region.tile_columns / region.lanes)
        registers = region.tile_rows * groups
        steps = reduction * max(registers, groups + region.tile_rows, HIDDEN)
        tiles = (region.rows // region.tile_rows) * (region.columns // region.tile_columns)
        total += tiles * (steps + PER_REGISTER * registers + PER_TILE)
    return total


# The kernel.

LINE = 16
"""Elements of a cache's line, 64 bytes; of shorter ones some would be left out."""


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


def operands(problem: Product) -> Operands:
    """The last arguments of the function that is being built."""
    size = (problem.rows, problem.outputs)
    return Operands(
        shortcut=argument("shortcut", *size) if problem.shortcut != "none" else None,
        weights=argument(WEIGHTS, problem.outputs * problem.reduction),
        bias=argument("bias", problem.outputs) if problem.bias else None,
        result=argument("result", *size),
    )


def product(problem: Product, given: Operands, stretches: Sequence[Stretch], tile: Tile) -> None:
    """Write the product into the function that is being built, for ``schedule`` to arrange.

    Args:
        problem: whose product it is.
        given: its arguments.
        stretches: the reduction.
        tile: the choice.
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
                _region(region, given.result, given.weights, problem.reduction, steps, start, epilogue)


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
) -> None:
    shape, width = (region.rows, region.columns), region.tile_columns
    before: tirx.Buffer | None = None
    for number, stretch in enumerate(stretches):
        total = T.sblock_alloc_buffer(shape, "float32")
        with T.grid(*shape, stretch.repeats, stretch.length) as axes, T.sblock(f"sum_{region.name}_{number}"):
            i, j, repeat, step = T.axis.remap("SSRR", list(axes))
            panel, column = j // width, j % width
            row = stretch.start + repeat * stretch.period + step
            weight = weights[region.column * reduction + panel * (width * reduction) + row * width + column]
            with T.init():
                T.buffer_store(total, start(region.column + j) if before is None else before[i, j], [i, j])
            T.buffer_store(total, total[i, j] + stretch.read(region.row + i, repeat, step) * weight, [i, j])
        before = total
    assert before is not None
    with T.grid(*shape) as axes, T.sblock(f"result_{region.name}"):
        i, j = T.axis.remap("SS", list(axes))
        row, column = region.row + i, region.column + j
        T.buffer_store(result, epilogue(before[i, j], row, column), [row, column])


def schedule(
    function: tirx.PrimFunc, problem: Product, stretches: Sequence[Stretch], tile: Tile, core: Core
) -> tirx.PrimFunc:
    """Arrange the loops of every region of a function that ``product`` wrote."""
    scheduler = Schedule(tvm.IRModule({"main": function}))
    steps = _in_steps(stretches, tile.unroll)
    (weights,) = (parameter for parameter in function.params if parameter.name == WEIGHTS)
    together = tile.order == "weights" and FLOAT32_BYTES * problem.outputs * problem.reduction > core.l2_bytes // 2
    ahead: dict[str, prefetch.Elements] = {}
    for region in regions(problem.rows, problem.outputs, tile):
        result = scheduler.get_sblock(f"result_{region.name}")
        sums = [scheduler.get_sblock(f"sum_{region.name}_{index}") for index in range(len(steps))]
        loops = _arrange(scheduler, region, result, sums, tile, together)
        if core.software_prefetch and tile.order == "weights" and region.down > 1:
            for index, loop in enumerate(loops):
                prefetch.mark(scheduler, loop, f"{region.name}_{index}")
                ahead[f"{region.name}_{index}"] = _next_panel(weights, problem, region, steps, index, tile.unroll)
    arranged = prefetch.insert(scheduler.mod["main"], ahead) if ahead else scheduler.mod["main"]
    return merging.merge(arranged) if together else arranged


def _next_panel(
    weights: tirx.Buffer, problem: Product, region: Region, steps: Sequence[Stretch], index: int, unroll: int
) -> prefetch.Elements:
    """What a pass through a stretch's loop asks for: an equal share, of all passes of a panel's tiles, of the next."""
    passes = [stretch.repeats * ceil(stretch.length / unroll) for stretch in steps]
    before, panel = sum(passes[:index]), region.tile_columns * problem.reduction
    share = ceil(panel / (sum(passes) * region.down))

    def elements(loops: Loops) -> Iterator[Expression]:
        *tiles, repeat, step = (loop.loop_var for loop in loops)
        # The loops over panels and over the tiles in each, or both in one.
        current, tile = tiles if len(tiles) > 1 else (tiles[0] // region.down, tiles[0] % region.down)
        passed = tile * sum(passes) + before + repeat * loops[-1].extent + step
        first = region.column * problem.reduction + (current + 1) * panel
        for line in range(0, share, LINE):
            yield weights[first + passed * share + line]

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
