"""A reference evaluator of saved Core ML programs (MIL, the "mlprogram" model type), in torch on the CPU.

It reads the saved ``.mlpackage`` itself: the protobuf and the weight file, never coremltools' own reader or its value
inference, so a fault of the converter or of the file shows. It is not Core ML: it says what the program means, not how
fast or with which kernels a phone runs it.

One module per concern, each using only those before it:

``errors``     the one exception
``dtypes``     element types, tensor types
``weights``    records of ``weight.bin``
``package``    the package folder: manifest, protobuf, weight file
``values``     constants: immediate or in the weight file, sub-byte included
``registry``   what an operation implementation is, and the arguments it understands
``ops``        the implementations, by group
``program``    binds the operations of the file to their implementations and evaluates them in order
"""

from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.program import Program

__all__ = ["MilError", "Program"]
