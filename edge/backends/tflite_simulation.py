"""int8 forms of a .tflite file with any of its operators in float, run on calibration samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edge.backends import tflite_file
from edge.backends.tflite_quantize import Calibrated, scope
from edge.parity.metrics import Array, sqnr_db
from edge.quantisation.search import Layer


class FileSimulation:
    """The quantizer is quick enough to make each file that is asked for; LiteRT runs it with the host's kernels."""

    def __init__(self, model: bytes, calibrated: Calibrated, samples: dict[str, np.ndarray], threads: int) -> None:
        """List the operators.

        Args:
            model: the float32 .tflite file.
            calibrated: the same, with ranges.
            samples: calibration samples (N, ...) by name of the signature's input, in the file's layout.
            threads: for the interpreter.
        """
        self._model, self._calibrated, self._inputs, self._threads = model, calibrated, samples, threads
        self._expected: dict[int, dict[str, Array]] = {}
        self.samples = len(next(iter(samples.values())))
        self.layers = _layers(model)

    def sqnr_db(self, kept: frozenset[str], samples: Sequence[int]) -> list[float]:
        """Of each of these samples against the float32 file, in dB; of several outputs the worst."""
        self._expected |= self._outputs(self._model, [row for row in samples if row not in self._expected])
        results = self._outputs(self._calibrated.to_int8(kept), samples)
        return [
            min(min(sqnr_db(expected, results[row][name])) for name, expected in self._expected[row].items())
            for row in samples
        ]

    def _outputs(self, content: bytes, rows: Sequence[int]) -> dict[int, dict[str, Array]]:
        """Of each sample, the outputs by name."""
        if not rows:
            return {}
        run = Interpreter(model_content=content, num_threads=self._threads).get_signature_runner()
        return {row: run(**{name: array[row : row + 1] for name, array in self._inputs.items()}) for row in rows}


def _layers(content: bytes) -> tuple[Layer, ...]:
    """The file's operators, each once: what the quantizer cannot tell apart is one layer."""
    model = tflite_file.unpack(content)
    found = {
        scope(operator, subgraph): Layer(
            scope(operator, subgraph), kind, _multiply_adds(kind, operator, subgraph), f"operator {position}"
        )
        for position, (kind, operator, subgraph) in enumerate(tflite_file.operators(model))
    }
    return tuple(found.values())


def _multiply_adds(kind: str, operator: Any, subgraph: Any) -> int:
    """Of one inference, batch 1."""
    output = int(np.prod(subgraph.tensors[operator.outputs[0]].shape, dtype=np.int64))
    match kind:
        case "CONV_2D":  # weights (out, height, width, in)
            each = np.prod(subgraph.tensors[operator.inputs[1]].shape[1:])
        case "DEPTHWISE_CONV_2D":  # weights (1, height, width, out)
            each = np.prod(subgraph.tensors[operator.inputs[1]].shape[1:3])
        case "FULLY_CONNECTED":  # weights (out, in)
            each = subgraph.tensors[operator.inputs[1]].shape[-1]
        case "BATCH_MATMUL":
            transposed = operator.builtinOptions.adjX
            each = subgraph.tensors[operator.inputs[0]].shape[-2 if transposed else -1]
        case _:
            each = 0
    return output * int(each)
