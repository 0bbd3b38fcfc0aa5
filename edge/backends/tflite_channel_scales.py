"""Scales for the channels that have none of their own: those whose weights are all zero, or next to nothing.

A pruned filter, or the piece of a sparse kernel that holds none of a channel's taps, is zero everywhere. The quantizer
gives such a channel a scale of 1e-11. Its bias is counted in that scale, leaves int32 and is cut off without a word,
and XNNPACK does not take the layer. Such a channel takes the largest scale of the others, in which zero is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge.backends import tflite_file
from edge.backends.tflite_weights import weighted_layers

_LARGEST_BIAS = 2**30
"""In quanta: one bit less than int32 has, for what is added to it."""

Exact = tuple[np.ndarray, np.ndarray | None]
"""A layer's weights, and its bias (channels) if it has one, in float32."""


def exact_layers(content: bytes) -> list[Exact]:
    """Of a float32 file, in the order of ``weighted_layers``."""
    model = tflite_file.unpack(content)
    return [
        (_floats(model, layer.weights), layer.bias and _floats(model, layer.bias)) for layer in weighted_layers(model)
    ]


def _floats(model: Any, tensor: Any) -> np.ndarray:
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)


def mend(quantised: Any, exact: Sequence[Exact]) -> None:
    """Give each channel whose scale is too small for its bias, or that has only zeros, one that will do.

    Args:
        quantised: the int8 file as a ``ModelT``, with scales per output channel; changed in place.
        exact: of the float32 file it was made from.
    """
    for layer, (weights, bias) in zip(weighted_layers(quantised), exact, strict=True):
        if layer.weights.type != schema.TensorType.INT8:
            continue
        stored, source = layer.weights.quantization, layer.source.quantization.scale[0]
        others = tuple(axis for axis in range(weights.ndim) if axis != stored.quantizedDimension)
        enough = np.where(weights.any(axis=others), stored.scale, np.max(stored.scale))
        if bias is not None:
            enough = np.maximum(enough, np.abs(bias) / (source * _LARGEST_BIAS))
        enough = enough.astype(np.float32)
        if np.array_equal(enough, stored.scale):
            continue
        stored.scale = enough
        layer.buffer.data = _rounded(weights / np.expand_dims(enough, others), np.int8)
        if bias is not None and layer.bias is not None:
            layer.bias.quantization.scale = source * enough
            quantised.buffers[layer.bias.buffer].data = _rounded(bias / (source * enough), np.int32)


def _rounded(values: np.ndarray, dtype: type) -> np.ndarray:
    return np.rint(values).astype(dtype).view(np.uint8).reshape(-1)
