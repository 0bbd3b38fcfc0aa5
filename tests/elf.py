"""Enough of ELF to ask a shared library what it is, what it exports, and where a symbol's bytes are."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

MACHINES = {62: "x86_64", 183: "aarch64"}
DYNAMIC_SYMBOLS = 11


@dataclass(frozen=True)
class SharedLibrary:
    """The machine it is for, and its defined dynamic symbols as (offset in the file, size)."""

    path: Path
    machine: str
    symbols: dict[str, tuple[int, int]]

    def bytes_of(self, symbol: str) -> bytes:
        offset, size = self.symbols[symbol]
        return self.path.read_bytes()[offset : offset + size]


def read(path: Path) -> SharedLibrary:
    data = path.read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01", "64-bit, little-endian"
    kind, machine = struct.unpack_from("<HH", data, 16)
    assert kind == 3, "a shared object"
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + size * index) for index in range(count)]
    dynamic = next(section for section in sections if section[1] == DYNAMIC_SYMBOLS)
    strings = sections[dynamic[6]][4]
    symbols = {}
    for at in range(dynamic[4], dynamic[4] + dynamic[5], 24):
        name, _, _, section, value, length = struct.unpack_from("<IBBHQQ", data, at)
        if 0 < section < count:
            text = data[strings + name : data.index(b"\0", strings + name)].decode()
            symbols[text] = (value - sections[section][3] + sections[section][4], length)
    return SharedLibrary(path, MACHINES.get(machine, str(machine)), symbols)
