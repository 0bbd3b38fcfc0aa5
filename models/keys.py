"""Renaming a checkpoint's keys: what the key maps of all families are made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from edge.models.registry import KeyMap

Rule = tuple[str, Callable[[re.Match[str]], str]]
"""A pattern for a whole key, and our name for what it matches."""


def key_map(rules: tuple[Rule, ...], marks: tuple[str, ...]) -> KeyMap:
    """A map that renames by the first rule that matches a whole key.

    Args:
        rules: in order. A key without a rule keeps its name: the loader reports it.
        marks: beginnings of keys that only this writer uses; without any of them the map does not apply.
    """

    def rename(key: str) -> str:
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, key):
                return replacement(match)
        return key

    def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        if not any(key.startswith(marks) for key in state):
            return None
        return {rename(key): tensor for key, tensor in state.items()}

    return renamed
