"""Constants of a program: stored in the protobuf ("immediate") or in the weight file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edge.runtimes.mil.dtypes import ElementType, TensorType, tensor_type
from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.package import Package
from edge.runtimes.mil.schema import MIL_pb2

Value = Tensor | str
"""What an operation's argument can be: a tensor (numbers and flags are tensors of rank 0) or a string."""


def unpack_bits(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Unpack unsigned integers that stand side by side without gaps, least significant bit first.

    Args:
        packed: uint8, rank 1.
        bits: of one element, 1 to 8.
        count: elements to unpack; the bits after them are padding.

    Returns:
        uint8 of shape (count,).
    """
    flat = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
    return (flat << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)


def _from_bytes(raw: bytes, declared: TensorType) -> Tensor:
    element = declared.element
    if len(raw) != declared.size:
        raise MilError(f"{len(raw)} bytes for a value declared {declared}")
    if element.bits >= 8:
        return _tensor(np.frombuffer(raw, _numpy(element)), declared)
    values = unpack_bits(np.frombuffer(raw, np.uint8), element.bits, declared.count)
    if element.torch == torch.int8:
        shift = 8 - element.bits
        values = (values << shift).view(np.int8) >> shift
    return _tensor(values, declared)


def _numpy(element: ElementType) -> np.dtype:
    return torch.empty(0, dtype=element.torch).numpy().dtype


def _tensor(array: np.ndarray, declared: TensorType) -> Tensor:
    return torch.from_numpy(np.array(array, _numpy(declared.element)).reshape(declared.shape))


def _immediate(tensor: MIL_pb2.TensorValue, declared: TensorType) -> Tensor:
    field = tensor.WhichOneof("value")
    if field == "bytes":
        return _from_bytes(tensor.bytes.values, declared)
    if field not in ("floats", "ints", "bools"):
        raise MilError(f"unsupported immediate value: {field}")
    values = getattr(tensor, field).values
    if len(values) != declared.count:
        raise MilError(f"{len(values)} values for a value declared {declared}")
    return _tensor(np.array(values), declared)


def decode(value: MIL_pb2.Value, package: Package) -> Value:
    """Decode one constant.

    Args:
        value: from the program.
        package: whose weight file the value may point into.

    Returns:
        A tensor of the declared type and shape (sub-byte integers as 8-bit ones), or a string.

    Raises:
        MilError: the value is of a kind that is not implemented, or does not fit its declared type.
    """
    kind = value.WhichOneof("value")
    if kind == "blobFileValue":
        declared = tensor_type(value.type)
        blob = value.blobFileValue
        return _from_bytes(package.stored(blob.fileName, blob.offset, declared), declared)
    if kind != "immediateValue" or value.immediateValue.WhichOneof("value") != "tensor":
        raise MilError(f"unsupported value: {value.immediateValue.WhichOneof('value') or kind}")
    tensor = value.immediateValue.tensor
    if tensor.WhichOneof("value") == "strings":
        if len(tensor.strings.values) != 1:
            raise MilError("unsupported value: a list of strings")
        return tensor.strings.values[0]
    return _immediate(tensor, tensor_type(value.type))
