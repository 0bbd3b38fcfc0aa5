"""The weights of a quantised .tflite file against those of the float file it came from.

One wrong weight among millions drowns in the quantisation error of the outputs. Weight by weight it cannot: rounding to
the nearest moves none by more than half a quantum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge.backends import tflite_file

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Weighted:
    """A convolution or fully connected layer with constant weights; tensors and buffer as in the file.

    Attributes:
        weights: where they are stored smaller than they are used, the smaller ones, behind a DEQUANTIZE.
        buffer: the weights' content.
        bias: None where there is none.
        source: what the layer reads.
    """

    weights: Any
    buffer: Any
    bias: Any | None
    source: Any


def weighted_layers(model: Any) -> Iterator[Weighted]:
    """All of them, in order."""
    stored = {op.outputs[0]: op.inputs[0] for kind, op, _ in tflite_file.operators(model) if kind == "DEQUANTIZE"}
    for kind, operator, subgraph in tflite_file.operators(model):
        if kind in _WEIGHTED:
            source, weights, *bias = operator.inputs
            tensor = subgraph.tensors[stored.get(weights, weights)]
            buffer = model.buffers[tensor.buffer]
            if buffer.data is not None:
                biases = [subgraph.tensors[index] for index in bias if index >= 0]
                yield Weighted(tensor, buffer, biases[0] if biases else None, subgraph.tensors[source])


def largest_error_quanta(original: bytes, quantised: bytes) -> float:
    """The largest distance of an int8 weight from its float32 original, in quanta of its channel.

    Args:
        original: content of the float32 file.
        quantised: content of the int8 file, with symmetric weights and the layers in the same order; what stayed
            float is passed over.
    """
    worst = 0.0
    pairs = zip(
        weighted_layers(tflite_file.unpack(original)), weighted_layers(tflite_file.unpack(quantised)), strict=True
    )
    for exact, rounded in pairs:
        tensor = rounded.weights
        if tensor.type != schema.TensorType.INT8:
            continue
        channels = [1] * len(tensor.shape)
        channels[tensor.quantization.quantizedDimension] = -1
        scale = np.asarray(tensor.quantization.scale, np.float64).reshape(channels)
        expected = exact.buffer.data.view(np.float32).reshape(tensor.shape) / scale
        worst = max(worst, float(np.abs(expected - rounded.buffer.data.view(np.int8).reshape(tensor.shape)).max()))
    return worst
