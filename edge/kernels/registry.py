"""Every template there is, by its name in records."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from edge.kernels.template import Template

TEMPLATES = {
    "pointwise": ("edge.kernels.pointwise", "Pointwise"),
    "depthwise": ("edge.kernels.depthwise", "DepthwiseTemplate"),
}
"""Module and class; imported when asked for."""


@cache
def template(name: str) -> Template[Any, Any]:
    """The template of that name.

    Raises:
        KeyError: there is none.
    """
    module, kind = TEMPLATES[name]
    return getattr(import_module(module), kind)()
