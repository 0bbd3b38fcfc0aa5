"""Renaming a checkpoint's keys: what the key maps of all families are made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from edge.models.registry import KeyMap

Rule = tuple[str, Callable[[re.Match[str]], str | None]]
"""A pattern for a whole key, and our name for what it matches; None for what our network computes itself."""


class SameTensorTwice(ValueError):
    """Two keys of a checkpoint have the same name among ours."""


def key_map(rules: tuple[Rule, ...], marks: tuple[str, ...]) -> KeyMap:
    """A map that renames by the first rule that matches a whole key.

    Args:
        rules: in order. A key without a rule keeps its name: the loader reports it.
        marks: beginnings of keys that only this writer uses; without any of them the map does not apply.

    Returns:
        The map. It raises ``SameTensorTwice`` for keys that would overwrite each other.
    """

    def rename(key: str) -> str | None:
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, key):
                return replacement(match)
        return key

    def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        if not any(key.startswith(marks) for key in state):
            return None
        ours: dict[str, Tensor] = {}
        for key, tensor in state.items():
            name = rename(key)
            if name in ours:
                raise SameTensorTwice(name)
            if name is not None:
                ours[name] = tensor
        return ours

    return renamed
