"""Smaller .tflite files from a float one, with ai-edge-quantizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_quantizer import qtyping, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe_manager import RecipeManager
from ai_edge_quantizer.utils import qsv_utils

from edge.backends import tflite_file

_SIGNATURE = "serving_default"


def _in_one_piece(content: bytes) -> bytes:
    """Move the weights into the flatbuffer.

    The quantizer appends them behind it, where old runtimes do not look, and LiteRT's verifier does not either:
    a truncated file would be a crash instead of an error.
    """
    model = tflite_file.unpack(content)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return tflite_file.pack(model)


def to_float16_weights(model: bytes, destination: Path) -> None:
    """Write the model with its weights in float16, each behind a DEQUANTIZE; biases and activations stay float32."""
    quantizer = Quantizer(model)
    quantizer.add_weight_only_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    destination.write_bytes(_in_one_piece(quantizer.quantize(enable_progress_report=False).quantized_model))


def to_int8(model: bytes, samples: dict[str, np.ndarray], threads: int, destination: Path) -> None:
    """Write the model with int8 weights (per output channel) and int8 activations, and float32 inputs and outputs.

    Args:
        model: the float32 .tflite file.
        samples: calibration samples (N, ...) by name of the signature's input, in the file's layout.
        threads: for the calibration's interpreter.
        destination: file to write.
    """
    rules = RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    for boundary in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        rules.add_quantization_config(".*", boundary, algorithm_key=AlgorithmName.NO_QUANTIZE)
    # The true minimum and maximum: the default is a moving average, which clips what only some samples reach.
    calibrator = Calibrator(model, num_threads=threads, qsv_update_func=qsv_utils.min_max_update)
    feeds = [
        {name: array[index : index + 1] for name, array in samples.items()}
        for index in range(len(next(iter(samples.values()))))
    ]
    calibrator.calibrate({_SIGNATURE: feeds}, rules)
    quantizer = Quantizer(model)
    quantizer.load_quantization_recipe(rules.get_quantization_recipe())
    result = quantizer.quantize(calibrator.get_model_qsvs(), enable_progress_report=False)
    destination.write_bytes(_in_one_piece(result.quantized_model))
