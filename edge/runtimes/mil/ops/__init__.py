"""The operation implementations. Importing this package registers them all."""

from edge.runtimes.mil.ops import (
    activation,
    compression,
    convolution,
    elementwise,
    normalization,
    quantization,
    reduction,
    resize,
    shape,
)

__all__ = [
    "activation",
    "compression",
    "convolution",
    "elementwise",
    "normalization",
    "quantization",
    "reduction",
    "resize",
    "shape",
]
