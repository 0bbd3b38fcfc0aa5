"""ExecuTorch's C++ runtime on a saved .bpte, whose program first has to pass the test cases that lie beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from executorch.devtools.bundled_program.serialize.generated import bundled_program_flatbuffer as schema
from executorch.extension.pybindings import portable_lib

from edge.backends.executorch_tolerance import TOLERANCE_METHOD
from edge.records import Port
from edge.runtimes import Infer, executorch

_SUITES, _CASES, _INPUTS, _OUTPUTS = 6, 6, 4, 6
"""Where ExecuTorch's bundled_program_schema.fbs puts the vectors of tables that lead to the test cases' tensors."""


def title() -> str:
    """ExecuTorch and its version."""
    return f"{executorch.title()}, its own test cases first"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Let the runtime verify every test case, within the tolerance that the program states; then load the program.

    Raises:
        RuntimeError: the file is not a whole bundle, has no test case, or an output is not what its test case expects.
    """
    content = artifact.read_bytes()
    embedded, cases = _read(content, artifact.name)
    program = executorch.open_program(embedded, artifact.name, threads)
    stated = program.load_method(TOLERANCE_METHOD)
    assert stated is not None
    (tolerance,) = stated.execute(())
    bundle = portable_lib._load_bundled_program_from_buffer(content)
    for case in range(cases):
        try:
            bundle.verify_result_with_bundled_expected_output("forward", case, rtol=0.0, atol=tolerance)
        except RuntimeError as error:
            raise RuntimeError(
                f"{artifact.name} misses its own test case {case + 1} of {cases} (tolerance {tolerance:.3g}): {error}"
            ) from None
    return executorch.callable_of(program, inputs, outputs)


def _read(content: bytes, name: str) -> tuple[bytes, int]:
    """The program inside a bundle, and its number of test cases.

    The runtime trusts a bundle's offsets and reads past the end of a truncated one: every part is touched here first.
    """
    try:
        if not schema.BundledProgram.BundledProgram.BundledProgramBufferHasIdentifier(content, 0):
            raise ValueError("its identifier is missing")
        bundle = schema.BundledProgram.BundledProgram.GetRootAs(content)
        suites = _tables(bundle, _SUITES, schema.BundledMethodTestSuite.BundledMethodTestSuite)
        forward = [suite for suite in suites if suite.MethodName() == b"forward"]
        cases = [c for s in forward for c in _tables(s, _CASES, schema.BundledMethodTestCase.BundledMethodTestCase)]
        for value in [v for c in cases for side in (_INPUTS, _OUTPUTS) for v in _tables(c, side, schema.Value.Value)]:
            tensor, union = schema.Tensor.Tensor(), value.Val()
            tensor.Init(union.Bytes, union.Pos)
            tensor.DataAsNumpy()
        embedded = bundle.ProgramAsNumpy().tobytes()
    except Exception as error:
        raise RuntimeError(f"{name} is not a whole bundled program: {error}") from None
    if not cases:
        raise RuntimeError(f"{name} carries no test case")
    return embedded, len(cases)


def _tables(parent: Any, field: int, kind: Callable[[], Any]) -> list[Any]:
    """The tables in a vector field. ExecuTorch 1.5.1's own accessors for these call a module instead of its class."""
    fields = parent._tab
    offset = fields.Offset(field)
    start = fields.Vector(offset)
    children = []
    for index in range(fields.VectorLen(offset)):
        child = kind()
        child.Init(fields.Bytes, fields.Indirect(start + 4 * index))
        children.append(child)
    return children
