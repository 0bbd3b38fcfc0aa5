"""Element types of MIL and the torch types that hold them.

Source: ``MIL.proto`` (``DataType``, ``TensorType``) as shipped in ``coremltools.proto``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.schema import MIL_pb2


@dataclass(frozen=True)
class ElementType:
    """One element type.

    Attributes:
        name: as in ``MIL.proto``.
        bits: of one stored element.
        torch: the type it is held in; sub-byte integers are widened to 8 bits.
        blob_code: its number in a weight file's records, None where weight files cannot hold it.
    """

    name: str
    bits: int
    torch: torch.dtype
    blob_code: int | None = None


ELEMENT_TYPES: dict[str, ElementType] = {
    t.name: t
    for t in (
        ElementType("BOOL", 8, torch.bool),
        ElementType("FLOAT16", 16, torch.float16, 1),
        ElementType("FLOAT32", 32, torch.float32, 2),
        ElementType("UINT8", 8, torch.uint8, 3),
        ElementType("INT8", 8, torch.int8, 4),
        ElementType("INT16", 16, torch.int16, 6),
        ElementType("UINT16", 16, torch.uint16, 7),
        ElementType("INT4", 4, torch.int8, 8),
        ElementType("UINT1", 1, torch.uint8, 9),
        ElementType("UINT2", 2, torch.uint8, 10),
        ElementType("UINT4", 4, torch.uint8, 11),
        ElementType("UINT3", 3, torch.uint8, 12),
        ElementType("UINT6", 6, torch.uint8, 13),
        ElementType("INT32", 32, torch.int32, 14),
        ElementType("UINT32", 32, torch.uint32, 15),
    )
}


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a tensor, as declared in the file."""

    element: ElementType
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the stored form: elements are packed without gaps, the last byte is filled up."""
        return (self.count * self.element.bits + 7) // 8

    def __str__(self) -> str:
        """As error messages show it."""
        return f"{self.element.name}{list(self.shape)}"


def tensor_type(declared: MIL_pb2.ValueType) -> TensorType:
    """Read a declared type.

    Raises:
        MilError: it is no tensor, has a symbolic dimension, or an element type that is not implemented.
    """
    kind = declared.WhichOneof("type")
    if kind != "tensorType":
        raise MilError(f"unsupported value type: {kind or 'none'}, only tensors are implemented")
    tensor = declared.tensorType
    name = MIL_pb2.DataType.Name(tensor.dataType)
    if name not in ELEMENT_TYPES:
        raise MilError(f"unsupported element type: {name}")
    if any(d.WhichOneof("dimension") != "constant" for d in tensor.dimensions):
        raise MilError("unsupported shape: a dimension is symbolic, only fixed shapes are implemented")
    return TensorType(ELEMENT_TYPES[name], tuple(int(d.constant.size) for d in tensor.dimensions))
