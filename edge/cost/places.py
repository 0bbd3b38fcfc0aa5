"""Where in a program an address lies: library, function, and the network's operator where the function's name tells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge.cost import elf
from edge.processes import Library
from edge.toolchains import arm64

# TVM compiles an operator, or several fused, to a function of the second name behind an entry point of the first. What
# it may run in parallel follows the second as functions without names.
ENTRY = re.compile(r"__tvm_ffi_(\w+)")
BODY = re.compile(r"(\w+)_compute_")


@dataclass(frozen=True)
class Place:
    """A place in the code.

    Attributes:
        library: the file's name; empty for code that is in no library, such as what was generated at run time.
        offset: of the address from the library's first.
        function: its name; where the library is stripped, "function at 0x..." if the unwind table tells where it
            begins, else empty.
        operator: of the network, empty where the name does not tell.
    """

    library: str
    offset: int
    function: str = ""
    operator: str = ""

    def __str__(self) -> str:
        function = self.operator or self.function or f"0x{self.offset:x}"
        return f"{function} in {self.library}" if self.library else f"0x{self.offset:x} outside of all libraries"


class Places:
    """Finds the places of addresses in one run of a program.

    Args:
        libraries: where they were in memory.
        folder: their paths count from here, as they did from the program's working folder.
    """

    def __init__(self, libraries: Iterable[Library], folder: Path) -> None:
        self._images: list[tuple[int, str, elf.Image]] = []
        for library in libraries:
            file = folder / library.path
            if library.path and file.is_file():  # the kernel's own library is no file
                self._images.append((library.base, file.name, elf.read(file)))

    def find(self, address: int) -> Place:
        """The place of an address in the program's memory."""
        for base, name, image in self._images:
            if image.low <= address - base < image.high:
                offset = address - base
                function = image.function(offset)
                return Place(name, offset, _name(function), _operator(image, function))
        return Place("", address)


def _name(function: elf.Function | None) -> str:
    if function is None:
        return ""
    return demangled(function.name) if function.name else f"function at 0x{function.start:x}"


def _operator(image: elf.Image, function: elf.Function | None) -> str:
    if function is None:
        return ""
    found = (
        ENTRY.fullmatch(function.name) or BODY.fullmatch(function.name)
        if function.name
        else BODY.fullmatch(image.named_before(function))
    )
    return found[1] if found else ""


def demangled(name: str) -> str:
    """A C++ function's name as its source has it, without parameters; any other name as it is."""
    if not name.startswith("_Z"):
        return name
    return arm64.program("llvm-cxxfilt-19").run("--no-params", name).stdout.strip() or name
