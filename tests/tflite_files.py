"""Small .tflite files, written operator by operator: what no converter would write, or only from a large network."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge.backends import tflite_file

_OPTIONS = {
    "ADD": (schema.BuiltinOptions.AddOptions, schema.AddOptionsT),
    "MEAN": (schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT),
    "MUL": (schema.BuiltinOptions.MulOptions, schema.MulOptionsT),
    "RESHAPE": (schema.BuiltinOptions.ReshapeOptions, schema.ReshapeOptionsT),
    "SUB": (schema.BuiltinOptions.SubOptions, schema.SubOptionsT),
}


def chain(shape: tuple[int, ...], *steps: tuple[str, np.ndarray | tuple[int, ...]]) -> bytes:
    """A file that takes ``x`` through one operator after another to ``y``.

    Args:
        shape: of x, float32.
        steps: ("ADD", constant) computes with a float32 constant; ("RESHAPE", shape) reshapes; ("MEAN", axes) leaves
            the axes out.
    """
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description, model.buffers, model.operatorCodes = 3, "test", [schema.BufferT()], []
    graph.name, graph.tensors, graph.operators, model.subgraphs = "main", [], [], [graph]

    def tensor(shape: tuple[int, ...], content: np.ndarray | None = None) -> int:
        new = schema.TensorT()
        new.name, new.shape, new.buffer = f"tensor_{len(graph.tensors)}", list(shape), 0
        new.type = schema.TensorType.FLOAT32
        if content is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(content.tobytes(), np.uint8)
            model.buffers.append(buffer)
            new.buffer = len(model.buffers) - 1
            if content.dtype == np.int32:
                new.type = schema.TensorType.INT32
        graph.tensors.append(new)
        return len(graph.tensors) - 1

    computed = tensor(shape)
    graph.inputs = [computed]
    for kind, argument in steps:
        if kind == "MEAN":
            axes = np.array(argument, np.int32)
            operand, shape = axes, tuple(np.delete(shape, axes))
        elif isinstance(argument, tuple):
            operand, shape = np.array(argument, np.int32), argument
        else:
            operand, shape = argument.astype(np.float32), np.broadcast_shapes(shape, argument.shape)
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = 1
        model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = [computed, tensor(operand.shape, operand)], [tensor(shape)]
        operator.builtinOptionsType, options = _OPTIONS[kind]
        operator.builtinOptions = options()
        graph.operators.append(operator)
        computed = operator.outputs[0]
    graph.outputs = [computed]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_named("x", graph.inputs[0])], [_named("y", computed)]
    model.signatureDefs = [signature]
    return tflite_file.pack(model)


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
