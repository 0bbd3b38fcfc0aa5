"""The devices we export for, one TOML file each. What differs is data: no code asks for a target's name."""

from __future__ import annotations

from edge.targets.profile import Gate, Target, baseline, load, names, read

__all__ = ["Gate", "Target", "baseline", "load", "names", "read"]
