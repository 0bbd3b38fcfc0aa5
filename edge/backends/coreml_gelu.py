"""GELU for coremltools, which in 9.0 drops the keyword of an exported program and makes the tanh form exact, silently.

Importing this module replaces its conversion.
"""

from __future__ import annotations

from typing import Any

from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op

_MODES = {"none": "EXACT", "tanh": "TANH_APPROXIMATION"}


@register_torch_op(override=True)
def gelu(context: Any, node: Any) -> None:
    """``aten.gelu(x, *, approximate)`` in the form it asks for.

    Raises:
        KeyError: an approximation that Core ML does not have.
    """
    (form,) = (node.kwinputs or {}).get("approximate", ["none"])
    context.add(mb.gelu(x=context[node.inputs[0]], mode=_MODES[form], name=node.name))
