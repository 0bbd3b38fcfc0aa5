"""The weights of a quantised .tflite file against those of the float file it came from.

One wrong weight among millions drowns in the quantisation error of the outputs. Weight by weight it cannot: rounding to
the nearest moves none by more than half a quantum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge.backends import tflite_file

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def weight_buffers(model: Any) -> Iterator[tuple[Any, Any]]:
    """Weight tensor and buffer of every convolution and fully connected layer with constant weights, in order.

    Weights that are stored smaller than they are used stand behind a DEQUANTIZE.
    """
    stored = {op.outputs[0]: op.inputs[0] for kind, op, _ in tflite_file.operators(model) if kind == "DEQUANTIZE"}
    for kind, operator, subgraph in tflite_file.operators(model):
        if kind in _WEIGHTED:
            tensor = subgraph.tensors[stored.get(operator.inputs[1], operator.inputs[1])]
            buffer = model.buffers[tensor.buffer]
            if buffer.data is not None:
                yield tensor, buffer


def largest_error_quanta(original: bytes, quantised: bytes) -> float:
    """The largest distance of an int8 weight from its float32 original, in quanta of its channel.

    Args:
        original: content of the float32 file.
        quantised: content of the int8 file, with symmetric weights and the layers in the same order; what stayed
            float is passed over.
    """
    worst = 0.0
    pairs = zip(
        weight_buffers(tflite_file.unpack(original)), weight_buffers(tflite_file.unpack(quantised)), strict=True
    )
    for (_, exact), (tensor, rounded) in pairs:
        if tensor.type != schema.TensorType.INT8:
            continue
        channels = [1] * len(tensor.shape)
        channels[tensor.quantization.quantizedDimension] = -1
        scale = np.asarray(tensor.quantization.scale, np.float64).reshape(channels)
        expected = exact.data.view(np.float32).reshape(tensor.shape) / scale
        worst = max(worst, float(np.abs(expected - rounded.data.view(np.int8).reshape(tensor.shape)).max()))
    return worst
