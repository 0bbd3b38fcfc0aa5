"""Every template there is, by its name in records."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from edge.kernels.template import Template

TEMPLATES = {
    "pointwise": ("edge.kernels.pointwise", "Pointwise"),
    "grouped": ("edge.kernels.grouped", "GroupedTemplate"),
    "convolution": ("edge.kernels.convolution", "Convolution"),
    "partial": ("edge.kernels.partial", "Partial"),
    "depthwise": ("edge.kernels.depthwise", "DepthwiseTemplate"),
    "large_kernel": ("edge.kernels.large_kernel", "LargeKernelTemplate"),
    "shiftwise": ("edge.kernels.shiftwise", "ShiftwiseTemplate"),
    "layer_norm": ("edge.kernels.normalisation", "LayerNormTemplate"),
    "response_norm": ("edge.kernels.normalisation", "ResponseNormTemplate"),
    "stock": ("edge.kernels.stock", "StockTemplate"),
}
"""Module and class; imported when asked for."""
IMPORTS = re.compile(r"^\s*from edge\.kernels(?:\.(\w+) import .*| import (.*))$", re.MULTILINE)


@cache
def template(name: str) -> Template[Any, Any]:
    """The template of that name.

    Raises:
        KeyError: there is none.
    """
    module, kind = TEMPLATES[name]
    return getattr(import_module(module), kind)()


def sources(name: str) -> tuple[Path, ...]:
    """The files of ours that decide a template's kernels: its module, and the others of this folder that it imports."""
    folder = Path(__file__).parent
    found: set[str] = set()
    waiting = [TEMPLATES[name][0].rpartition(".")[2]]
    while waiting:
        module = waiting.pop()
        if module not in found and (folder / f"{module}.py").is_file():
            found.add(module)
            for names in IMPORTS.findall((folder / f"{module}.py").read_text(encoding="utf-8")):
                waiting += re.findall(r"\w+", "".join(names))
    return tuple(folder / f"{module}.py" for module in sorted(found))
