"""Core ML's messages (MIL.proto, Model.proto) as coremltools generated them, without coremltools itself.

``import coremltools`` brings every converter and PyTorch's exporters: ten seconds for each artifact that is checked.
Where the process has it already, the messages are the same classes, since there is one pool of descriptors.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coremltools.proto import MIL_pb2, Model_pb2
else:
    _PACKAGE = "coreml_messages"
    _found = ModuleSpec(_PACKAGE, loader=None, is_package=True)
    _found.submodule_search_locations = [str(Path(find_spec("coremltools").origin).with_name("proto"))]
    sys.modules[_PACKAGE] = module_from_spec(_found)
    MIL_pb2 = importlib.import_module(f"{_PACKAGE}.MIL_pb2")
    Model_pb2 = importlib.import_module(f"{_PACKAGE}.Model_pb2")

__all__ = ["MIL_pb2", "Model_pb2"]
