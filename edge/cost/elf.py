"""Enough of ELF to say which function of a shared library holds an address."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOAD = 1  # type of a segment
SYMBOL_TABLES = (2, 11)  # types of sections: .symtab and .dynsym
FUNCTIONS = (2, 10)  # types of symbols: functions, and those that choose one at load time


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

    def named_before(self, function: Function) -> str:
        """Name of the nearest function before another that has one."""
        index = bisect.bisect_left(self.functions, function.start, key=lambda other: other.start)
        return next((other.name for other in reversed(self.functions[:index]) if other.name), "")


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
    for function in _unwound(data, sections):
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


def _unwound(data: bytes, sections: list[tuple[int, ...]]) -> Iterator[Function]:
    """Functions without names, from the unwind table."""
    for name, _, _, address, at, size, *_ in sections:
        if not data.startswith(b".eh_frame\0", _names(data, sections) + name):
            continue
        end = at + size
        home = address - at
        while at + 16 <= end:
            length, kind, begin, extent = struct.unpack_from("<IIiI", data, at)
            if length == 0:
                break
            if kind:  # 0 is a prologue that entries share, else the distance to it
                start = home + at + 8 + begin  # relative to its own place, as every compiler for Arm writes it
                yield Function(start, start + extent, "")
            at += 4 + length


def _names(data: bytes, sections: list[tuple[int, ...]]) -> int:
    """Where the names of sections begin."""
    (index,) = struct.unpack_from("<H", data, 62)
    return sections[index][4]
