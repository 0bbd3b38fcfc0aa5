"""Give biases the one dimension that they have: the quantizer takes a bias's first dimension for its channels.

Where litert-torch's converter fuses a multiplication by channels into the fully connected layer before it, it leaves
the bias as it was broadcast, (1, 1, 1, C). ai-edge-quantizer then writes C scales for a dimension of size 1, and LiteRT
refuses the int8 file. No value changes.
"""

from __future__ import annotations

from edge.backends import tflite_file

_BIASED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


def flatten(content: bytes) -> bytes:
    """The same file with every bias of shape (C); unchanged if there is nothing to do.

    Args:
        content: of a float32 .tflite file.
    """
    model = tflite_file.unpack(content)
    found = list(tflite_file.operators(model))
    places = {
        (id(graph), int(op.inputs[2])): graph for kind, op, graph in found if kind in _BIASED and len(op.inputs) > 2
    }
    biases = [graph.tensors[index] for (_, index), graph in places.items() if index >= 0]
    broadcast = [bias for bias in biases if len(bias.shape) > 1]
    for bias in broadcast:
        bias.shape = [max(int(size) for size in bias.shape)]
    return tflite_file.pack(model) if broadcast else content
