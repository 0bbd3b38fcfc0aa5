"""Each operator of a quantised .tflite file on its own: the kernels that will run it against the reference kernels.

Two correct kernels round differently by one quantum now and then, and a deep network amplifies that: end to end, the
outputs differ by several quanta though nothing is wrong. With the very same inputs, operator by operator, they may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edge.backends import tflite_file, tflite_reference


@dataclass(frozen=True)
class Deviation:
    """How far one operator's int8 output is from the reference kernel's, for the same inputs.

    Attributes:
        operator: position and type.
        within_one_quantum: share of the output's elements.
        largest: difference in quanta.
    """

    operator: str
    within_one_quantum: float
    largest: int


def _alone(model: Any, subgraph: Any, operator: Any) -> bytes:
    """A .tflite file of one operator: its constants stay inside, its other inputs become the file's."""
    used = list(dict.fromkeys(index for index in (*operator.inputs, *operator.outputs) if index >= 0))
    place = {-1: -1, **{index: position for position, index in enumerate(used)}}
    file, graph, only = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
    file.version, file.operatorCodes = model.version, [model.operatorCodes[operator.opcodeIndex]]
    only.__dict__.update(operator.__dict__, opcodeIndex=0)
    only.inputs, only.outputs = [place[i] for i in operator.inputs], [place[i] for i in operator.outputs]
    file.buffers, graph.tensors = [schema.BufferT()], []
    for index in used:
        tensor = schema.TensorT()
        tensor.__dict__.update(subgraph.tensors[index].__dict__, buffer=0)
        data = model.buffers[subgraph.tensors[index].buffer]
        if data.data is not None:
            tensor.buffer = len(file.buffers)
            file.buffers.append(data)
        graph.tensors.append(tensor)
    graph.inputs = [position for position in only.inputs if position >= 0 and graph.tensors[position].buffer == 0]
    graph.outputs, graph.operators, file.subgraphs = only.outputs, [only], [graph]
    return tflite_file.pack(file)


def _reference(file: bytes, feeds: list[np.ndarray]) -> np.ndarray:
    file = tflite_reference.with_sums_in_float(file)
    interpreter = Interpreter(model_content=file, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), feeds, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def deviations(path: Path, sample: dict[str, np.ndarray]) -> list[Deviation]:
    """Compare every operator with an int8 output.

    Args:
        path: a .tflite file with one subgraph.
        sample: arrays of batch 1 by name of the signature's input, in the file's layout.
    """
    model = tflite_file.unpack(path.read_bytes())
    (subgraph,) = model.subgraphs
    interpreter = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    interpreter.get_signature_runner()(**sample)
    found = []
    for position, (kind, operator, _) in enumerate(tflite_file.operators(model)):
        if subgraph.tensors[operator.outputs[0]].type != schema.TensorType.INT8:
            continue
        varying = [i for i in operator.inputs if i >= 0 and model.buffers[subgraph.tensors[i].buffer].data is None]
        expected = _reference(_alone(model, subgraph, operator), [interpreter.get_tensor(i) for i in varying])
        got = interpreter.get_tensor(operator.outputs[0])
        difference = np.abs(got.astype(np.int16) - expected.astype(np.int16))
        found.append(Deviation(f"{position} {kind}", float(np.mean(difference <= 1)), int(difference.max())))
    return found


def deviation_notes(path: Path, sample: dict[str, np.ndarray]) -> dict[str, Any]:
    """The worst operator of ``deviations`` in the form of notes."""
    worst = min(deviations(path, sample), key=lambda d: (d.within_one_quantum, -d.largest))
    return {
        "operators_within_one_quantum": worst.within_one_quantum,
        "largest_operator_deviation": worst.largest,
        "worst_operator": worst.operator,
    }
