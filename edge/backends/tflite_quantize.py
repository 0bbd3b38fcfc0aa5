"""Smaller .tflite files from a float one, with ai-edge-quantizer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_quantizer import qtyping, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe_manager import RecipeManager
from ai_edge_quantizer.utils import qsv_utils, tfl_flatbuffer_utils

from edge import memory
from edge.backends import tflite_channel_scales, tflite_file
from edge.backends.tflite_large_weights import rounded_as_rows

_SIGNATURE = "serving_default"


def _in_one_piece(content: bytes) -> Any:
    """The model with its weights moved into the flatbuffer.

    The quantizer appends them behind it, where old runtimes do not look, and LiteRT's verifier does not either:
    a truncated file would be a crash instead of an error.
    """
    model = tflite_file.unpack(content)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def to_float16_weights(model: bytes, destination: Path) -> None:
    """Write the model with its weights in float16, each behind a DEQUANTIZE; biases and activations stay float32."""
    quantizer = Quantizer(model)
    quantizer.add_weight_only_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    quantised = _in_one_piece(quantizer.quantize(enable_progress_report=False).quantized_model)
    destination.write_bytes(tflite_file.pack(quantised))


class Calibrated:
    """A float32 file whose activations' ranges are known, from which int8 files are made.

    A range goes from the smallest to the largest value over the samples.
    """

    def __init__(self, model: bytes, samples: dict[str, np.ndarray], threads: int) -> None:
        """Calibrate.

        Args:
            model: the float32 .tflite file.
            samples: calibration samples (N, ...) by name of the signature's input, images (N, H, W, C).
            threads: for the calibration's interpreter.
        """
        self._model = model
        self._exact = tflite_channel_scales.exact_layers(model)
        # The true minimum and maximum: the default is a moving average, which clips what only some samples reach.
        calibrator = Calibrator(model, num_threads=threads, qsv_update_func=qsv_utils.min_max_update)
        feeds = [
            {name: array[index : index + 1] for name, array in samples.items()}
            for index in range(len(next(iter(samples.values()))))
        ]
        calibrator.calibrate({_SIGNATURE: feeds}, _int8_rules(frozenset()))
        self._ranges = calibrator.get_model_qsvs()
        del calibrator, feeds
        memory.give_back()  # its interpreter kept every tensor of every sample

    def to_int8(self, kept: frozenset[str] = frozenset()) -> bytes:
        """The file with int8 weights (per output channel) and int8 activations, and float32 inputs and outputs.

        Args:
            kept: scopes of the operators that stay in float32, see ``scope``.
        """
        quantizer = Quantizer(self._model)
        quantizer.load_quantization_recipe(_int8_rules(kept).get_quantization_recipe())
        with rounded_as_rows():
            made = quantizer.quantize(self._ranges, enable_progress_report=False).quantized_model
        quantised = _in_one_piece(made)
        tflite_channel_scales.mend(quantised, self._exact)
        content = tflite_file.pack(quantised)
        del quantizer, made, quantised
        memory.give_back()  # copies of all weights
        return content


def scope(operator: Any, subgraph: Any) -> str:
    """What the quantizer calls an operator: the names of its outputs."""
    return str(tfl_flatbuffer_utils.get_op_scope(operator, subgraph.tensors))


def _int8_rules(kept: frozenset[str]) -> RecipeManager:
    rules = RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    for boundary in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        rules.add_quantization_config(".*", boundary, algorithm_key=AlgorithmName.NO_QUANTIZE)
    if kept:
        rules.add_quantization_config(
            f"^(?:{'|'.join(map(re.escape, sorted(kept)))})$",
            qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key=AlgorithmName.NO_QUANTIZE,
        )
    return rules
