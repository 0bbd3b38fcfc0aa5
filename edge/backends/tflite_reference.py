"""An int8 file as LiteRT's reference kernels get it right.

In LiteRT 2.3.0 the reference SUM of int8 tensors is wrong by up to the whole range; XNNPACK's is exact. Softmax comes
as EXP, SUM and DIV from litert-torch, so every network with attention has such sums. Here they are taken in float:

    y = SUM(x)  ->  y = QUANTIZE(SUM(DEQUANTIZE(x)))

which is what the int8 operator means: the exact sum, rounded once.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edge.backends import tflite_file


def with_sums_in_float(content: bytes) -> bytes:
    """The same file for the reference kernels; unchanged if there is nothing to do."""
    model = tflite_file.unpack(content)
    sums = [
        (operator, subgraph)
        for kind, operator, subgraph in tflite_file.operators(model)
        if kind == "SUM" and subgraph.tensors[operator.outputs[0]].type == schema.TensorType.INT8
    ]
    for operator, subgraph in sums:
        _take_in_float(model, subgraph, operator)
    return tflite_file.pack(model) if sums else content


def _take_in_float(model: Any, subgraph: Any, operator: Any) -> None:
    source, destination = operator.inputs[0], operator.outputs[0]
    before = _conversion(model, schema.BuiltinOperator.DEQUANTIZE, source, _float_like(subgraph, source))
    after = _conversion(model, schema.BuiltinOperator.QUANTIZE, _float_like(subgraph, destination), destination)
    operator.inputs, operator.outputs = [before.outputs[0], *operator.inputs[1:]], [after.inputs[0]]
    position = next(i for i, other in enumerate(subgraph.operators) if other is operator)
    subgraph.operators[position : position + 1] = [before, operator, after]


def _float_like(subgraph: Any, index: int) -> int:
    """A new float tensor of another's shape."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape = subgraph.tensors[index].name + b"/float", subgraph.tensors[index].shape
    tensor.type, tensor.buffer = schema.TensorType.FLOAT32, 0
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _conversion(model: Any, builtin: int, source: int, destination: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = tflite_file.operator_code(model, builtin)
    operator.inputs, operator.outputs = [source], [destination]
    return operator
