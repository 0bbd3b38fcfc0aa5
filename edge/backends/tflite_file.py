"""What is inside a .tflite file, read from its flatbuffer with the schema that LiteRT ships."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edge.records import Port

_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def unpack(content: bytes) -> Any:
    """A file's content as the schema's ``ModelT``."""
    return schema.ModelT.InitFromPackedBuf(content, 0)


def pack(model: Any) -> bytes:
    """The content of the file that holds a ``ModelT``."""
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def ports(path: Path, names: tuple[str, ...], *, side: str) -> tuple[Port, ...]:
    """The ports of the file's only signature, which bears the pipeline's names.

    Args:
        path: the .tflite file; its feature maps are NHWC.
        names: of the inputs or outputs, in the pipeline's order.
        side: "inputs" or "outputs".
    """
    runner = Interpreter(model_path=str(path)).get_signature_runner()
    tensors = runner.get_input_details() if side == "inputs" else runner.get_output_details()
    return tuple(
        Port(
            name=name,
            shape=tuple(int(size) for size in tensors[name]["shape"]),
            layout="NHWC" if len(tensors[name]["shape"]) == 4 else "",
            tensor=name,
            dtype=tensors[name]["dtype"].__name__,
        )
        for name in names
    )


def operators(model: Any) -> Iterator[tuple[str, Any, Any]]:
    """Type, operator and subgraph of every operator."""
    # Old files keep the code in the deprecated 8-bit field, new ones in the other; the larger of the two is meant.
    types = [_OPERATOR_NAMES[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            yield types[operator.opcodeIndex], operator, subgraph


def operator_code(model: Any, builtin: int) -> int:
    """Index of an operator type in the file's table, where it is entered if need be."""
    for index, code in enumerate(model.operatorCodes):
        if builtin in (code.builtinCode, code.deprecatedBuiltinCode):
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def operator_notes(path: Path) -> dict[str, Any]:
    """Operators in all, TRANSPOSEs among them, and how many there are of each type."""
    types = collections.Counter(kind for kind, _, _ in operators(unpack(path.read_bytes())))
    return {
        "operators": types.total(),
        "transposes": types["TRANSPOSE"],
        "operators_by_type": dict(sorted(types.items())),
    }


def delegation_notes(path: Path) -> dict[str, Any]:
    """How much of a file XNNPACK runs, as LiteRT's interpreter has divided it on this host.

    The interpreter keeps the operators it was given and adds one for each part that it handed over. Such a part has
    computed what leads from its inputs to its outputs.

    Returns:
        ``delegates``, ``delegated_operators``, ``delegated_share``, ``not_delegated`` (type: count).
    """
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    nodes = interpreter._get_ops_details()
    parts = [node for node in nodes if node["op_name"] == "DELEGATE"]
    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    maker = {int(tensor): index for index, node in enumerate(own) for tensor in node["outputs"]}
    taken: set[int] = set()
    for part in parts:
        given, wanted = {int(tensor) for tensor in part["inputs"]}, [int(tensor) for tensor in part["outputs"]]
        while wanted:
            tensor = wanted.pop()
            if tensor not in given and tensor in maker and maker[tensor] not in taken:
                taken.add(maker[tensor])
                wanted += [int(source) for source in own[maker[tensor]]["inputs"]]
    left = collections.Counter(node["op_name"] for index, node in enumerate(own) if index not in taken)
    return {
        "delegates": len(parts),
        "delegated_operators": len(taken),
        "delegated_share": round(len(taken) / len(own), 4) if own else 0.0,
        "not_delegated": dict(sorted(left.items())),
    }


def quantisation_notes(path: Path) -> dict[str, Any]:
    """How many operators of a quantised file still compute in float, and the quantum of each output.

    Beside them those whose int8 kernel is another one on another processor.

    A float output is written by a DEQUANTIZE; its quantum is the scale of what goes in. An output without one was
    computed in float and has none.
    """
    model = unpack(path.read_bytes())
    floats = 0
    per_processor = collections.Counter[str]()
    scales: dict[int, float] = {}
    for kind, operator, subgraph in operators(model):
        tensors = subgraph.tensors
        if _depends_on_processor(kind, operator, subgraph, model):
            per_processor[kind] += 1
        if kind == "DEQUANTIZE" and tensors[operator.inputs[0]].type == schema.TensorType.INT8:
            scales[operator.outputs[0]] = float(tensors[operator.inputs[0]].quantization.scale[0])
        elif any(tensors[index].type == schema.TensorType.FLOAT32 for index in operator.outputs):
            floats += 1
    outputs = {o.name.decode(): o.tensorIndex for o in model.signatureDefs[0].outputs}
    quanta = {name: scales[index] for name, index in outputs.items() if index in scales}
    return {"float_operators": floats, "processor_operators": dict(per_processor), "output_quanta": quanta}


def _depends_on_processor(kind: str, operator: Any, subgraph: Any, model: Any) -> bool:
    """Whether an int8 operator rounds otherwise on Arm than on x86: about one value in two hundred is a quantum off.

    LiteRT tabulates the exponentials of a softmax in another way, and XNNPACK rounds a mean over the innermost axis in
    another; a mean over positions has the same bits.
    """
    if kind != "MEAN":
        return kind == "SOFTMAX"
    values, axes = (subgraph.tensors[index] for index in operator.inputs)
    reduced = np.frombuffer(bytes(model.buffers[axes.buffer].data), np.int32) % len(values.shape)
    return len(values.shape) - 1 in reduced
