"""This host's processor: its name, and what a target's code would miss on it."""

from __future__ import annotations

import platform
from pathlib import Path

from edge.targets import Target

CPUINFO = Path("/proc/cpuinfo")
LINUX_NAMES = {
    "bmi": "bmi1",
    "neon": "asimd",
    "crc": "crc32",
    "lse": "atomics",
    "rdm": "asimdrdm",
    "rcpc": "lrcpc",
    "fullfp16": "asimdhp",
    "fp16fml": "asimdfhm",
    "dotprod": "asimddp",
}
"""What Linux calls a feature whose name in LLVM is another."""


def cpuinfo() -> dict[str, str]:
    """What Linux says of the first core, by its name for it; nothing where there is no such file."""
    if not CPUINFO.is_file():
        return {}
    first = CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0]
    lines = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def name() -> str:
    """Such as "AMD EPYC"; the architecture where nothing more is known."""
    return cpuinfo().get("model name") or platform.machine()


def missing(target: Target) -> tuple[str, ...]:
    """Features of the target's core that this host's lacks; its architecture, if it is another."""
    if platform.machine() != target.core.machine:
        return (target.core.machine,)
    info = cpuinfo()
    flags = info.get("flags", info.get("Features", "")).split()
    return tuple(feature for feature in target.core.features if LINUX_NAMES.get(feature, feature) not in flags)
