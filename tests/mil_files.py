"""Small MIL programs as saved packages, built operation by operation with coremltools' builder."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types
from coremltools.proto import MIL_pb2, Model_pb2

from edge.backends import coreml_package

# ct.convert collects garbage every time, a quarter of a second with these imports: let it skip what is here for good.
gc.freeze()

TYPES = {np.dtype(np.float32): types.fp32, np.dtype(np.float16): types.fp16, np.dtype(np.int32): types.int32}
MODEL = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS = Path("Data", "com.apple.CoreML", "weights", "weight.bin")


def save(
    path: Path, inputs: Sequence[np.ndarray], build: Callable[..., Any], opset: ct.target = ct.target.iOS16
) -> Path:
    """A package whose inputs x0, x1, … have the arrays' shapes and types; what ``build`` returns are its outputs."""
    specs = {f"x{i}": mb.placeholder(a.shape, dtype=TYPES[a.dtype]) for i, a in enumerate(inputs)}
    with Function(specs, opset_version=opset) as function:
        outputs = build(*function.inputs.values())
        function.set_outputs(list(outputs) if isinstance(outputs, (list, tuple)) else [outputs])
    program = Program()
    program.add_function("main", function)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=opset,
        pass_pipeline=ct.PassPipeline.EMPTY,
        compute_precision=ct.precision.FLOAT32,
    )
    coreml_package.save(model, path)
    return path


def edit(package: Path, change: Callable[[Any], None]) -> None:
    """Change the saved program's one block."""
    spec = Model_pb2.Model.FromString((package / MODEL).read_bytes())
    function = spec.mlProgram.functions["main"]
    change(function.block_specializations[function.opset])
    (package / MODEL).write_bytes(spec.SerializeToString())


def operations(block: MIL_pb2.Block, kind: str) -> list[MIL_pb2.Operation]:
    return [operation for operation in block.operations if operation.type == kind]


def constant(block: MIL_pb2.Block, operation: MIL_pb2.Operation, argument: str) -> MIL_pb2.Value:
    """The value of a constant argument, in place."""
    (binding,) = operation.inputs[argument].arguments
    (source,) = (o for o in operations(block, "const") if o.outputs[0].name == binding.name)
    return source.attributes["val"]
