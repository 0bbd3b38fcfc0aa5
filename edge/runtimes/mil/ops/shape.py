"""Operations that move elements and compute nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.registry import Flags, Ints, Tensors, operation


@operation("reshape")
def reshape(x: Tensor, shape: Ints) -> Tensor:
    """Row-major; one dimension may be -1."""
    return x.reshape(shape)


@operation("transpose")
def transpose(x: Tensor, perm: Ints) -> Tensor:
    """Axis i of the result is axis perm[i] of x."""
    return x.permute(perm)


@operation("expand_dims")
def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    """Insert axes of size 1, at their places in the result."""
    rank = x.ndim + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


@operation("squeeze")
def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Drop the given axes of size 1, or all of them."""
    return x.squeeze() if axes is None else x.squeeze(axes)


@operation("concat")
def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """Join along an existing axis."""
    if interleave:
        raise MilError("interleave is not implemented")
    return torch.cat(values, axis)


@operation("stack")
def stack(values: Tensors, axis: int) -> Tensor:
    """Join along a new axis."""
    return torch.stack(values, axis)


@operation("split")
def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None) -> Tensors:
    """Cut along one axis, into pieces of given sizes or into equal ones."""
    if split_sizes is not None:
        return torch.split(x, list(split_sizes), axis)
    if num_splits is None or x.shape[axis] % num_splits:
        raise MilError(f"axis {axis} of {list(x.shape)} does not split into {num_splits} equal parts")
    return torch.split(x, x.shape[axis] // num_splits, axis)


@operation("slice_by_index")
def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Flags | None = None,
    end_mask: Flags | None = None,
    squeeze_mask: Flags | None = None,
) -> Tensor:
    """``x[begin:end:stride]`` on every axis; begin_mask and end_mask drop a bound, squeeze_mask indexes at begin."""
    none = (False,) * x.ndim
    index: list[slice | int] = []
    for first, last, step, from_start, to_end, single in zip(
        begin,
        end,
        stride or (1,) * x.ndim,
        begin_mask or none,
        end_mask or none,
        squeeze_mask or none,
        strict=True,
    ):
        if step < 1:
            raise MilError(f"stride {step} is not implemented")
        index.append(first if single else slice(None if from_start else first, None if to_end else last, step))
    return x[tuple(index)]


@operation("pad")
def pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Pad the last axes: before and after, first of them first. Modes: constant, reflect, replicate."""
    pairs = [pad[i : i + 2] for i in range(0, len(pad), 2)]
    if mode == "constant":
        return F.pad(x, [amount for pair in reversed(pairs) for amount in pair], value=constant_val)
    if mode not in ("reflect", "replicate"):
        raise MilError(f"unknown mode {mode}")
    if x.ndim != 4 or any(amount for pair in pairs[:-2] for amount in pair):
        raise MilError(f"mode {mode} is implemented for the last two axes of rank 4 only")
    return F.pad(x, [amount for pair in reversed(pairs[-2:]) for amount in pair], mode=mode)


@operation("gather")
def gather(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Replace one axis by x's elements at the indices, of any rank.

    An index outside the axis, undefined in MIL where validate_indices is false, is an error here.
    """
    if batch_dims:
        raise MilError("batch_dims is not implemented")
    axis %= x.ndim
    positions = indices.reshape(-1).long()  # stored as uint16 from iOS 17 on, which torch cannot compare
    if ((positions < 0) | (positions >= x.shape[axis])).any():
        raise MilError(f"an index is outside axis {axis} of {list(x.shape)}")
    taken = x.index_select(axis, positions)
    return taken.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@operation("tile")
def tile(x: Tensor, reps: Ints) -> Tensor:
    """Repeat x along every axis."""
    return x.repeat(reps)
