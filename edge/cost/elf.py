"""Enough of ELF to say which function of a shared library holds an address."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOAD, EH_FRAME_HDR = 1, 0x6474E550  # types of segments
SYMBOL_TABLES = (2, 11)  # types of sections: .symtab and .dynsym
FUNCTIONS = (2, 10)  # types of symbols: functions, and those that choose one at load time
RELATIVE_TO_PLACE, RELATIVE_TO_TABLE = 0x1B, 0x3B  # encodings of pointers in .eh_frame, as every compiler writes them


@dataclass(frozen=True)
class Function:
    """A function's addresses, ``end`` not included; ``name`` is empty where only the unwind table tells of it."""

    start: int
    end: int
    name: str


@dataclass(frozen=True)
class Image:
    """A program or shared library.

    Attributes:
        low, high: first address of its segments and the one after the last, as linked.
        functions: in order of address.
    """

    path: Path
    low: int
    high: int
    functions: tuple[Function, ...]

    def function(self, address: int) -> Function | None:
        """The function that holds an address, as linked; None where no table tells."""
        index = bisect.bisect_right(self.functions, address, key=lambda function: function.start) - 1
        found = self.functions[index] if index >= 0 else None
        return found if found and address < found.end else None


def read(path: Path) -> Image:
    """An image's extent and functions, from its symbol tables, and from its unwind table where they are stripped.

    Raises:
        ValueError: not a 64-bit little-endian ELF file.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is not a 64-bit little-endian ELF file")
    segments, sections = _headers(data)
    loaded = [segment for segment in segments if segment[0] == LOAD]
    low, high = min(segment[3] for segment in loaded), max(segment[3] + segment[6] for segment in loaded)
    functions: dict[int, Function] = {}
    # Of several names for one place the first in alphabetical order stands; those with an underscore come last.
    for function in sorted(_symbols(data, sections), key=lambda f: (f.name.startswith("_"), f.name)):
        functions.setdefault(function.start, function)
    for function in _unwound(data, segments, loaded):
        functions.setdefault(function.start, function)
    return Image(path, low, high, tuple(functions[start] for start in sorted(functions)))


def _headers(data: bytes) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Segments (type, flags, offset, address, _, file size, memory size, _) and sections (name, type, flags, address,
    offset, size, link, ...).
    """
    segments_at, sections_at = struct.unpack_from("<QQ", data, 32)
    segment_size, segment_count, section_size, section_count = struct.unpack_from("<HHHH", data, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", data, segments_at + segment_size * i) for i in range(segment_count)]
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + section_size * i) for i in range(section_count)]
    return segments, sections


def _symbols(data: bytes, sections: list[tuple[int, ...]]) -> Iterator[Function]:
    """Functions of the symbol tables; those without a size, as some assembly has them, reach to their section's end."""
    for section in sections:
        if section[1] not in SYMBOL_TABLES:
            continue
        strings = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            name, info, _, home, start, size = struct.unpack_from("<IBBHQQ", data, at)
            if info & 15 in FUNCTIONS and 0 < home < len(sections):
                text = data[strings + name : data.index(b"\0", strings + name)].decode(errors="replace")
                end = start + size if size else sections[home][3] + sections[home][5]
                yield Function(start, end, text)


def _unwound(data: bytes, segments: list[tuple[int, ...]], loaded: list[tuple[int, ...]]) -> Iterator[Function]:
    """Functions without names, from the search table of the unwind table."""

    def offset(address: int) -> int:
        return next(s[2] + address - s[3] for s in loaded if s[3] <= address < s[3] + s[5])

    for segment in segments:
        if segment[0] != EH_FRAME_HDR:
            continue
        base, at = segment[3], segment[2]
        version, pointer_encoding, _, table_encoding = data[at : at + 4]
        if (version, pointer_encoding, table_encoding) != (1, RELATIVE_TO_PLACE, RELATIVE_TO_TABLE):
            return
        (count,) = struct.unpack_from("<I", data, at + 8)
        for index in range(count):
            start, entry = struct.unpack_from("<ii", data, at + 12 + 8 * index)
            # An entry is its length, its prologue's distance, where the function begins, and how long it is.
            (size,) = struct.unpack_from("<I", data, offset(base + entry) + 12)
            yield Function(base + start, base + start + size, "")
