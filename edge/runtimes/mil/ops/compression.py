"""Compressed weights: constants that Core ML decompresses when it loads or runs the model.

iOS 16 stores flat arrays of bytes with the shape beside them; iOS 18 stores tensors of sub-byte types. Both forms of an
operation have one name, and the older one is told by its ``shape`` argument.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.registry import Ints, Tensors, operation
from edge.runtimes.mil.values import unpack_bits


def _unpack(packed: Tensor, bits: int, shape: Ints) -> Tensor:
    return torch.from_numpy(unpack_bits(packed.numpy(), bits, math.prod(shape))).reshape(shape)


def _spread(blocks: Tensor, shape: torch.Size) -> Tensor:
    """Repeat every element over its block: one block along an axis covers ``shape[axis] // blocks.shape[axis]``."""
    for axis, size in enumerate(shape):
        if size % blocks.shape[axis]:
            raise MilError(f"{blocks.shape[axis]} blocks do not divide axis {axis} of {list(shape)}")
        blocks = blocks.repeat_interleave(size // blocks.shape[axis], dim=axis)
    return blocks


def _scatter(values: Tensor, mask: Tensor) -> Tensor:
    """Put the values where the mask is set, in row-major order, and zero elsewhere."""
    if int(mask.sum()) != values.numel():
        raise MilError(f"the mask has {int(mask.sum())} elements set for {values.numel()} values")
    dense = torch.zeros(mask.shape, dtype=values.dtype)
    dense[mask.bool()] = values
    return dense


@operation("constexpr_affine_dequantize", computes=False)
def affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int) -> Tensor:
    """``scale * (quantized_data - zero_point)`` along one axis, in the scale's type (iOS 16)."""
    along = [-1 if i == axis % quantized_data.ndim else 1 for i in range(quantized_data.ndim)]
    steps = quantized_data.float() - zero_point.float().reshape(along if zero_point.ndim else [])
    return (steps * scale.float().reshape(along if scale.ndim else [])).to(scale.dtype)


@operation("constexpr_blockwise_shift_scale", computes=False)
def blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """``scale * (data - offset)``, one of each for every block of data, in the scale's type (iOS 18)."""
    steps = data.float()
    if offset is not None:
        steps = steps - _spread(offset.float(), data.shape)
    return (steps * _spread(scale.float(), data.shape)).to(scale.dtype)


@operation("constexpr_lut_to_dense", computes=False)
def lut_to_dense(indices: Tensor, lut: Tensor, shape: Ints | None = None, vector_axis: int | None = None) -> Tensor:
    """Elements of a palette by index.

    Args:
        indices: iOS 18: the result's shape, but divided by V along ``vector_axis``. iOS 16: packed bytes.
        lut: iOS 18: (blocks along each axis..., palette size, V). iOS 16: (palette size,).
        shape: the result's (iOS 16).
        vector_axis: along which a palette entry's V elements lie.
    """
    if shape is not None:
        indices = _unpack(indices, lut.numel().bit_length() - 1, shape)
        lut = lut.reshape((1,) * len(shape) + (-1, 1))
    blocks, vector = lut.shape[:-2], lut.shape[-1]
    block = _spread(torch.arange(math.prod(blocks)).reshape(blocks), indices.shape)
    entries = lut.flatten(0, -3)[block, indices.long()]
    if vector == 1:
        return entries.squeeze(-1)
    if vector_axis is None:
        raise MilError("a palette of vectors needs a vector_axis")
    axis = vector_axis % indices.ndim
    return entries.movedim(-1, axis + 1).flatten(axis, axis + 1)


@operation("constexpr_sparse_to_dense", computes=False)
def sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Ints | None = None) -> Tensor:
    """Values where the mask (packed bytes and a shape in iOS 16) is set, zero elsewhere."""
    return _scatter(nonzero_data, mask if shape is None else _unpack(mask, 1, shape))


@operation("constexpr_lut_to_sparse", computes=False)
def lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, vector_axis: int | None = None
) -> Tensors:
    """The mask, and palette elements for the set positions only (iOS 18)."""
    if lut.shape[-1] != 1:
        raise MilError("palettes of vectors are not implemented for sparse weights")
    dense = lut_to_dense(_scatter(indices_nonzero_data, indices_mask), lut)
    return indices_mask, dense[indices_mask.bool()]


@operation("constexpr_sparse_blockwise_shift_scale", computes=False)
def sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> Tensors:
    """The mask, and ``scale * (data - offset)`` for the set positions only (iOS 18)."""
    dense = blockwise_shift_scale(_scatter(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask.bool()]
