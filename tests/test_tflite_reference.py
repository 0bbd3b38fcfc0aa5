"""LiteRT's reference kernels define what an int8 operator means, except where they are wrong themselves."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edge.backends import tflite_file, tflite_reference

SHAPE = (1, 5, 49)
IN_SCALE, OUT_SCALE, ZERO = 1 / 255, 49 / 255 / 4, -128
"""Values from 0 to 1, as EXP gives them inside a softmax; sums to a quarter of what they could reach."""


def quantised_sum() -> bytes:
    """A file of one int8 SUM over the last axis."""
    model, graph, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT(), schema.BufferT()], []
    model.buffers[1].data = np.asarray([2], np.int32).view(np.uint8)
    graph.tensors = []
    for name, shape, kind, scale in (
        (b"x", SHAPE, schema.TensorType.INT8, IN_SCALE),
        (b"axis", (1,), schema.TensorType.INT32, None),
        (b"y", (*SHAPE[:2], 1), schema.TensorType.INT8, OUT_SCALE),
    ):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, int(scale is None)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [ZERO]
        graph.tensors.append(tensor)
    operator.opcodeIndex = tflite_file.operator_code(model, schema.BuiltinOperator.SUM)
    operator.inputs, operator.outputs = [0, 1], [2]
    operator.builtinOptionsType, operator.builtinOptions = (
        schema.BuiltinOptions.ReducerOptions,
        schema.ReducerOptionsT(),
    )
    operator.builtinOptions.keepDims = True
    graph.inputs, graph.outputs, graph.operators, model.subgraphs = [0], [2], [operator], [graph]
    return tflite_file.pack(model)


def by_reference_kernels(file: bytes, values: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=file, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_the_reference_sum_is_wrong_in_int8_and_right_in_float():
    """When the first half fails, LiteRT has mended its kernel, and ``tflite_reference`` is needed no longer."""
    values = np.random.default_rng(0).integers(-128, -60, SHAPE, np.int8)
    real = ((values.astype(np.float64) - ZERO) * IN_SCALE).sum(2, keepdims=True)
    exact = np.clip(np.round(real / OUT_SCALE) + ZERO, -128, 127)
    file = quantised_sum()
    assert np.abs(by_reference_kernels(file, values) - exact).max() > 1
    assert np.abs(by_reference_kernels(tflite_reference.with_sums_in_float(file), values) - exact).max() == 0
