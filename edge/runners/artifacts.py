"""What of an artifact goes to the device: the file as it is, or the program inside an ExecuTorch bundle.

ExecuTorch's wheels carry no library that reads bundles in C++. A bundle is a program with test cases around it; the
test cases are for its own check, which the host makes, and what an app loads is the program. So the program is cut out
here, byte for byte.
"""

from __future__ import annotations

from pathlib import Path

from edge.backends import executorch_bundle


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
    program.write_bytes(executorch_bundle.read(artifact.read_bytes(), artifact.name).program)
    return program
