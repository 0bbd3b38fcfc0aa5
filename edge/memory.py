"""Memory that the C library keeps for itself after it was freed."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Ask glibc to return what is freed: of a large network it would keep gigabytes that others need."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
