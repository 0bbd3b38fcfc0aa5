"""One kernel as machine code: an object file to link with the kernel runner, or a library for TVM's runtime."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.kernels.template import WEIGHTS
from edge.toolchains import debian

if TYPE_CHECKING:
    from tvm import tirx

    from edge.targets import Target

SYMBOL = "kernel"
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel.

    Attributes:
        file: it lies in.
        shapes: of its arguments.
        weights: which of them are a network's weights, and in no cache when it begins.
    """

    file: Path
    shapes: Shapes
    weights: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a worker's request or answer has it."""
        return {"file": str(self.file), "shapes": self.shapes, "weights": self.weights}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Kernel:
        """The inverse of ``to_json``."""
        return cls(Path(data["file"]), tuple(map(tuple, data["shapes"])), tuple(data["weights"]))


def compile_kernel(function: tirx.PrimFunc, target: Target, file: Path) -> Kernel:
    """Compile a scheduled kernel for a target's core.

    Args:
        function: every argument is a float32 tensor of a fixed shape, results last.
        target: has a ``[tvm]`` table.
        file: to write; its suffix tells what: ``.o`` is an object file, ``.so`` a library.

    Raises:
        ValueError: an argument is no float32 tensor of a fixed shape, or the code is several objects.
        RuntimeError: TVM refuses the kernel, or the linker fails.
    """
    import tvm

    assert target.tvm is not None
    shapes = argument_shapes(function)
    module = tvm.IRModule({SYMBOL: function.with_attr("global_symbol", SYMBOL)})
    table = target.tvm.model_dump(mode="json")["target"]
    with tvm.transform.PassContext(opt_level=3):
        executable = tvm.compile(module, target=tvm.target.Target(table))
    write = _object if file.suffix == ".o" else _library
    with_partial = file.with_name(f".{file.name}.so")  # TVM looks at the suffix before it calls the linker
    executable.export_library(str(with_partial), fcompile=lambda _, objects, **__: write(objects, target, file))
    weights = (index for index, parameter in enumerate(function.params) if parameter.name == WEIGHTS)
    return Kernel(file, shapes, tuple(weights))


def argument_shapes(function: tirx.PrimFunc) -> Shapes:
    """The shapes of a kernel's arguments.

    Raises:
        ValueError: one is no float32 tensor of a fixed shape.
    """
    from tvm import tirx

    if not all(isinstance(p.ty, tirx.BufferType) and p.dtype == "float32" for p in function.params):
        raise ValueError("a kernel that is measured takes float32 tensors only")
    return tuple(tuple(int(length) for length in parameter.shape) for parameter in function.params)


def _object(objects: list[str], target: Target, file: Path) -> None:
    if len(objects) != 1:
        raise ValueError(f"the kernel is {len(objects)} object files, not one")
    shutil.copyfile(objects[0], file)


def _library(objects: list[str], target: Target, file: Path) -> None:
    assert target.tvm is not None
    linker = target.tvm.linker
    debian.ensure(linker.package, (linker.package,))
    done = debian.program(linker.package, linker.program).run("-shared", *linker.options, "-o", file, *objects)
    if done.returncode:
        raise RuntimeError(f"{linker.program} could not link {file.name}: {done.stderr.strip()[:200]}")
