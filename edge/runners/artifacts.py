"""What of an artifact goes to the device: the file as it is, or the program inside an ExecuTorch bundle.

ExecuTorch's wheels carry no library that reads bundles in C++. A bundle is a program with test cases around it; the
test cases are for its own check, which the host makes, and what an app loads is the program. So the program is cut out
here, byte for byte.
"""

from __future__ import annotations

import struct
from pathlib import Path

_IDENTIFIER = b"BP08"
_PROGRAM = 8
"""Where bundled_program_schema.fbs puts the program, a vector of bytes, in the root table's list of fields."""


def prepare(runtime: str, artifact: Path, folder: Path) -> Path:
    """The file that a native runner loads.

    Args:
        runtime: module in ``edge.runtimes``.
        artifact: the saved file.
        folder: receives the file if it is not the artifact itself.

    Raises:
        ValueError: a bundle is not whole.
    """
    if runtime != "executorch_bundled":
        return artifact
    program = folder / f"{artifact.stem}.pte"
    program.write_bytes(_program(artifact.read_bytes(), artifact.name))
    return program


def _program(content: bytes, name: str) -> bytes:
    """The program inside a bundle, read as a FlatBuffer by hand: importing ExecuTorch for it would take seconds."""
    try:
        if content[4:8] != _IDENTIFIER:
            raise ValueError("its identifier is missing")
        (table,) = struct.unpack_from("<I", content, 0)
        (to_fields,) = struct.unpack_from("<i", content, table)
        (to_program,) = struct.unpack_from("<H", content, table - to_fields + _PROGRAM)
        if not to_program:
            raise ValueError("it holds no program")
        field = table + to_program
        (to_vector,) = struct.unpack_from("<I", content, field)
        (size,) = struct.unpack_from("<I", content, field + to_vector)
        begin = field + to_vector + 4
        if begin + size > len(content):
            raise ValueError(f"it ends after {len(content)} of at least {begin + size} bytes")
    except (ValueError, struct.error) as error:
        raise ValueError(f"{name} is not a whole bundled program: {error}") from None
    return content[begin : begin + size]
