"""ExecuTorch's C++ runtime on a saved .bpte, whose program first has to pass the test cases that lie beside it."""

from __future__ import annotations

from pathlib import Path

from executorch.extension.pybindings import _C as bindings

from edge.backends import executorch_bundle
from edge.backends.executorch_tolerance import TOLERANCE_METHOD
from edge.records import Port
from edge.runtimes import Infer, executorch


def title() -> str:
    """ExecuTorch and its version."""
    return f"{executorch.title()}, its own test cases first"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Let the runtime verify every test case, within the tolerance that the program states; then load the program.

    Raises:
        ValueError: the file is not a whole bundle, or has no test case.
        RuntimeError: its program is not whole, or an output is not what its test case expects.
    """
    content = artifact.read_bytes()
    bundle = executorch_bundle.read(content, artifact.name)
    if not bundle.cases:
        raise ValueError(f"{artifact.name} carries no test case")
    program = executorch.open_program(bundle.program, artifact.name, threads)
    (tolerance,) = program.run(TOLERANCE_METHOD, ())
    verified = bindings._load_bundled_program_from_buffer(content)
    for case in range(bundle.cases):
        try:
            verified.verify_result_with_bundled_expected_output("forward", case, rtol=0.0, atol=tolerance)
        except RuntimeError as error:
            raise RuntimeError(
                f"{artifact.name} misses its own test case {case + 1} of {bundle.cases} "
                f"(tolerance {tolerance:.3g}): {error}"
            ) from None
    return executorch.callable_of(program, inputs, outputs)
