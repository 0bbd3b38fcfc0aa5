"""Adding up shifted images, which the shift-wise operator does with its filters' results."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from edge.models.shiftwise_tables import SIDE, Tables


def shifted(y: Tensor, size: tuple[int, int], rows: int, columns: int) -> Tensor | None:
    """The image z of this size with z[i, j] = y[i + rows, j + columns], zero where y ends; None where it is all zero.

    Args:
        y: (N, C, H', W').
        size: height and width of the result.
        rows: may be negative.
        columns: may be negative.
    """
    (height, width), (lines, positions) = size, y.shape[2:]
    if not (-height < rows < lines and -width < columns < positions):
        return None
    edges = (-columns, width + columns - positions, -rows, height + rows - lines)
    return functional.pad(y, edges) if any(edges) else y


def spatial_sum(y: Tensor, filters: Tensor, size: tuple[int, int], shifts: list[tuple[int, int]]) -> Tensor:
    """The sum over places p and groups g of y[filters[p, g]], shifted to the place.

    Args:
        y: (N, rep channels · n, H + 2, W + 2), the filters' results.
        filters: (places, groups, rep channels), channels of y.
        size: H and W.
        shifts: for each place what is added to row and column.

    Returns:
        (N, rep channels, H, W).
    """
    reaching = []
    for channels, shift in zip(filters, shifts, strict=True):
        moved = shifted(reduce(torch.add, (y[:, group] for group in channels)), size, *shift)
        if moved is not None:
            reaching.append(moved)
    return reduce(torch.add, reaching)


def offsets(tables: Tables) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Rows and columns that the filters' results are shifted by at each place: along the rows, along the columns.

    A result has ``SIDE - 1`` rows and columns of padding, so that 1 is no shift.
    """
    starts = [SIDE * place + SIDE - 1 - tables.kernel // 2 for place in range(tables.filters)]
    return [(1, start) for start in starts], [(start, 1) for start in starts]
