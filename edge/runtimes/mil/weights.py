"""Records of ``weight.bin``, the file that holds a Core ML program's large constants.

Layout, little-endian (reference/toolchains.md; checked in the tests against coremltools' own writer):

    file    count u32, version u32 (2), padding to 64 bytes
    record  sentinel u32 0xDEADBEEF, type u32, bytes u64, data offset u64, padding bits u64, reserved to 64 bytes
    data    at the record's data offset, a multiple of 64
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from edge.runtimes.mil.dtypes import TensorType
from edge.runtimes.mil.errors import MilError

VERSION = 2
SENTINEL = 0xDEADBEEF
ALIGNMENT = 64
_FILE_HEADER = struct.Struct("<II")
_RECORD = struct.Struct("<IIQQQ")


class WeightFile:
    """A weight file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        """Map the file and check its header.

        Raises:
            MilError: the file is missing, empty, or of another version.
        """
        self._path = path
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise MilError(f"{path.name}: cannot be read: {error}") from error
        if len(self._data) < ALIGNMENT:
            raise MilError(f"{path.name}: {len(self._data)} bytes are too few for the file header")
        _, version = _FILE_HEADER.unpack_from(self._data)
        if version != VERSION:
            raise MilError(f"{path.name}: version {version}, expected {VERSION}")

    def read(self, offset: int, declared: TensorType) -> bytes:
        """The stored bytes of the record at ``offset``, which must agree with the type the program declares.

        Raises:
            MilError: no record stands there, or its type, size or place does not fit.
        """
        where = f"{self._path.name}: record at {offset}"
        if offset % ALIGNMENT or offset + ALIGNMENT > len(self._data):
            raise MilError(f"{where}: outside the file or not aligned to {ALIGNMENT} bytes")
        sentinel, code, size, start, padding_bits = _RECORD.unpack_from(self._data, offset)
        if sentinel != SENTINEL:
            raise MilError(f"{where}: corrupted header, sentinel {sentinel:#010x} instead of {SENTINEL:#010x}")
        if code != declared.element.blob_code:
            raise MilError(f"{where}: holds type {code}, the program declares {declared}")
        if size != declared.size or padding_bits != size * 8 - declared.count * declared.element.bits:
            raise MilError(f"{where}: {size} bytes with {padding_bits} padding bits, the program declares {declared}")
        if start % ALIGNMENT or start + size > len(self._data):
            raise MilError(f"{where}: data at {start} reaches outside the file or is not aligned")
        return self._data[start : start + size]
