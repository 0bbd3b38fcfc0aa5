"""Network definitions and checkpoint loaders. To add a family, add a file and name it in ``registry.FAMILIES``."""

from edge.models.registry import Entry, create, entries, find, register

__all__ = ["Entry", "create", "entries", "find", "register"]
