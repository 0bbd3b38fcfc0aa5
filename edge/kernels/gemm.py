"""How a matrix product is cut into register tiles: which tiles there are, and how the weights lie for them.

A tile of the result stays in vector registers while the whole reduction runs (``product``). Rows and columns that fill
no tile are a region of their own with a smaller tile, not a condition in a loop, and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from edge.kernels.core import Core
from edge.kernels.template import FLOAT32_BYTES, STACK_BYTES, Array, Choice


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


def constants(packed: Array, *bias: Array) -> tuple[Array, ...]:
    """A product's constants: the weights as packed, and the bias, if there is one, as it is."""
    return (packed, *(np.ascontiguousarray(values, dtype=np.float32) for values in bias))


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
