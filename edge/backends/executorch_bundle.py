"""A bundle of ExecuTorch's (.bpte), read by its schema: a program with test cases around it.

Read with FlatBuffers alone: ExecuTorch's own reader comes with its exporter, which takes ten seconds to import.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from flatbuffers.number_types import UOffsetTFlags
from flatbuffers.table import Table

_IDENTIFIER = b"BP08"
_SUITES, _PROGRAM = 6, 8
_METHOD, _CASES = 4, 6
_INPUTS, _OUTPUTS = 4, 6
_VALUE = 6
_DATA = 8
"""Where bundled_program_schema.fbs puts the fields of the bundle, a suite, a case, a value and a tensor."""


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds.

    Attributes:
        program: the .pte, byte for byte.
        cases: number of test cases of ``forward``.
    """

    program: bytes
    cases: int


def read(content: bytes, name: str) -> Bundle:
    """Read a bundle, and touch every part: the runtime trusts offsets and reads past the end of a truncated one.

    Raises:
        ValueError: it is not a whole bundle.
    """
    try:
        if content[4:8] != _IDENTIFIER:
            raise ValueError("its identifier is missing")
        (root,) = struct.unpack_from("<I", content, 0)
        bundle = Table(content, root)
        program = _bytes(bundle, _PROGRAM)
        forward = [suite for suite in _tables(bundle, _SUITES) if _bytes(suite, _METHOD) == b"forward"]
        cases = [case for suite in forward for case in _tables(suite, _CASES)]
        for value in [value for case in cases for side in (_INPUTS, _OUTPUTS) for value in _tables(case, side)]:
            _bytes(_table(value, _VALUE), _DATA)
    except (ValueError, TypeError, struct.error) as error:
        raise ValueError(f"{name} is not a whole bundled program: {error}") from None
    return Bundle(program, len(cases))


def _place(table: Table, field: int) -> int:
    """Where a field lies, counted from its table."""
    offset = table.Offset(field)
    if not offset:
        raise ValueError(f"a table has no field {field}")
    return int(offset)


def _bytes(table: Table, field: int) -> bytes:
    """A vector of bytes, or a text."""
    offset = _place(table, field)
    start, size = table.Vector(offset), table.VectorLen(offset)
    if start + size > len(table.Bytes):
        raise ValueError(f"it ends after {len(table.Bytes)} of at least {start + size} bytes")
    return bytes(table.Bytes[start : start + size])


def _table(parent: Table, field: int) -> Table:
    """The table that a field points to."""
    return Table(parent.Bytes, parent.Indirect(parent.Pos + _place(parent, field)))


def _tables(parent: Table, field: int) -> list[Table]:
    """The tables in a vector; none where there is no such field."""
    offset = parent.Offset(field)
    if not offset:
        return []
    start, size = parent.Vector(offset), UOffsetTFlags.bytewidth
    return [Table(parent.Bytes, parent.Indirect(start + size * index)) for index in range(parent.VectorLen(offset))]
