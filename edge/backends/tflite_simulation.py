"""int8 forms of a .tflite file with any of its operators in float, run on calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edge.backends import tflite_file
from edge.backends.tflite_quantize import Calibrated, scope
from edge.parity.metrics import Array, sqnr_db
from edge.quantisation.search import Layer


class FileSimulation:
    """The quantizer is quick enough to make each file that is asked for; LiteRT runs it with the host's kernels."""

    def __init__(
        self, model: bytes, calibrated: Calibrated, samples: dict[str, np.ndarray], blurred: int, threads: int
    ) -> None:
        """List the operators.

        Args:
            model: the float32 .tflite file.
            calibrated: the same, with ranges.
            samples: calibration samples (N, ...) by name of the signature's input, in the file's layout.
            blurred: how many of the last samples are out of focus.
            threads: for the interpreter.
        """
        self._calibrated, self._inputs, self._threads = calibrated, samples, threads
        self.samples, self.blurred = len(next(iter(samples.values()))), blurred
        self.layers = _layers(model)
        exact = self._runner(model)
        self._expected = [exact(sample) for sample in range(self.samples)]

    def sqnr_db(self, kept: frozenset[str], samples: Sequence[int]) -> Iterator[float]:
        """Of each of these samples against the float32 file, in dB; of several outputs the worst."""
        run = self._runner(self._calibrated.to_int8(kept))
        for sample in samples:
            results = run(sample)
            yield min(min(sqnr_db(exact, results[name])) for name, exact in self._expected[sample].items())

    def _runner(self, content: bytes) -> Callable[[int], dict[str, Array]]:
        """Of a file, what gives a sample's outputs by name."""
        run = Interpreter(model_content=content, num_threads=self._threads).get_signature_runner()
        return lambda sample: run(**{name: array[sample : sample + 1] for name, array in self._inputs.items()})


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
