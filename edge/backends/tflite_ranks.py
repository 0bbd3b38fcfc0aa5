"""Compute with constants of high rank in rank 4, where LiteRT's GPU accelerator would misplace them.

    y = x + c                                 ->  y = reshape(reshape(x, (1, …)) + reshape(c, (1, …)))

TFLite aligns shapes of different rank at the right. The accelerator has four axes, batch, height, width and channels,
and puts a constant (H, N, M) at (1, H, N, M), but a computed tensor (H, N, M) at (H, 1, N, M): each attention head then
gets the scores, or the bias, of the first. LiteRT issue 8980 tells of it; version 2.3.0 aligns two computed tensors and
leaves constants as they were. In rank 4 nothing is left to align. A RESHAPE moves no values: the results keep their
bits everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge.backends import tflite_file

_RANK = 4
_ELEMENTWISE = frozenset({"ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "POW", "SQUARED_DIFFERENCE", "SUB"})


def align_constants(content: bytes) -> bytes:
    """The same file with every constant where the GPU expects it; unchanged if there is nothing to do.

    Args:
        content: of a float32 .tflite file.
    """
    model = tflite_file.unpack(content)
    found = [(operator, subgraph) for kind, operator, subgraph in tflite_file.operators(model) if kind in _ELEMENTWISE]
    misplaced = [(operator, subgraph) for operator, subgraph in found if _is_misplaced(model, subgraph, operator)]
    for operator, subgraph in misplaced:
        _raise_rank(model, subgraph, operator)
    return tflite_file.pack(model) if misplaced else content


def _is_misplaced(model: Any, subgraph: Any, operator: Any) -> bool:
    """Whether a constant meets a computed tensor with which the accelerator does not align it."""
    operands = [subgraph.tensors[index] for index in operator.inputs]
    constants = [operand for operand in operands if _is_constant(model, operand)]
    if len(constants) != 1 or any(_rank(operand) > _RANK for operand in operands):
        return False
    (computed,) = (operand for operand in operands if operand is not constants[0])
    constant = constants[0]
    if _rank(constant) == _rank(computed):
        return 0 < _rank(constant) < _RANK and constant.shape[0] > 1
    return _rank(constant) > _rank(computed)


def _is_constant(model: Any, tensor: Any) -> bool:
    return model.buffers[tensor.buffer].data is not None


def _shape(tensor: Any) -> list[int]:
    """The schema leaves a scalar's shape out."""
    return [] if tensor.shape is None else [int(size) for size in tensor.shape]


def _rank(tensor: Any) -> int:
    return len(_shape(tensor))


def _raise_rank(model: Any, subgraph: Any, operator: Any) -> None:
    """Let an operator read and write tensors of rank 4, with RESHAPEs around it."""
    position = next(i for i, other in enumerate(subgraph.operators) if other is operator)
    before, after, inputs = [], [], []
    for index in operator.inputs:
        if _is_constant(model, subgraph.tensors[index]):
            inputs.append(_raised_constant(subgraph, index))
        else:
            inputs.append(_add_raised(subgraph, subgraph.tensors[index]))
            before.append(_reshape(model, subgraph, index, inputs[-1]))
    operator.inputs = inputs
    (output,) = operator.outputs
    if _rank(subgraph.tensors[output]) < _RANK:
        raised = _add_raised(subgraph, subgraph.tensors[output])
        after.append(_reshape(model, subgraph, raised, output))
        operator.outputs = [raised]
    subgraph.operators[position : position + 1] = [*before, operator, *after]


def _raised_constant(subgraph: Any, index: int) -> int:
    """The constant in rank 4: itself, unless another operator reads it in its own rank."""
    tensor = subgraph.tensors[index]
    if sum(index in operator.inputs for operator in subgraph.operators) > 1:
        index = _add_raised(subgraph, tensor)
        subgraph.tensors[index].buffer = tensor.buffer
    else:
        tensor.shape = _raised_shape(tensor)
    return index


def _raised_shape(tensor: Any) -> list[int]:
    """Ones in front, up to rank 4: TFLite's own alignment."""
    shape = _shape(tensor)
    return [1] * (_RANK - len(shape)) + shape


def _add_raised(subgraph: Any, tensor: Any) -> int:
    """A tensor like another, of rank 4 and without content."""
    raised = schema.TensorT()
    raised.name, raised.type, raised.buffer = tensor.name + b"/rank_4", tensor.type, 0
    raised.shape = _raised_shape(tensor)
    subgraph.tensors.append(raised)
    return len(subgraph.tensors) - 1


def _reshape(model: Any, subgraph: Any, source: int, destination: int) -> Any:
    """A RESHAPE from one tensor to another."""
    shape = np.asarray(subgraph.tensors[destination].shape, np.int32)
    buffer = schema.BufferT()
    buffer.data = shape.view(np.uint8)
    model.buffers.append(buffer)
    target = schema.TensorT()
    target.name = subgraph.tensors[destination].name + b"/shape"
    target.type, target.shape, target.buffer = schema.TensorType.INT32, [len(shape)], len(model.buffers) - 1
    subgraph.tensors.append(target)
    operator = schema.OperatorT()
    operator.opcodeIndex = tflite_file.operator_code(model, schema.BuiltinOperator.RESHAPE)
    operator.inputs, operator.outputs = [source, len(subgraph.tensors) - 1], [destination]
    operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    operator.builtinOptions = schema.ReshapeOptionsT()
    operator.builtinOptions.newShape = shape
    return operator
