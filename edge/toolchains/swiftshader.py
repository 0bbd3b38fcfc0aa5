"""SwiftShader, a Vulkan driver that computes on the host's processor: Debian's chromium package carries it.

Debian's own software driver, Mesa's lavapipe, lacks what LiteRT's GPU accelerator asks for in bookworm.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from edge.toolchains import chromium, debian
from edge.toolchains.environments import Progress

_PLACE = Path("usr/lib/chromium")


def ensure(progress: Progress = debian.print_progress) -> Path:
    """Unpack the driver and Vulkan's loader unless they are there already.

    Raises:
        SetupError: not a Debian host, no network, or no such package.
    """
    return debian.ensure(chromium.NAME, chromium.PACKAGES, progress)


def version() -> str:
    """Of the package that carries the driver, which ``ensure`` has unpacked."""
    return debian.versions(chromium.NAME)["chromium"]


def use() -> None:
    """Make it this process's only Vulkan driver; before anything in the process opens Vulkan.

    The loader is opened by its path, so that whoever asks for it by name later gets this one: no search path, which
    would lead the process's other libraries astray.
    """
    place = debian.folder(chromium.NAME) / _PLACE
    os.environ["VK_DRIVER_FILES"] = str(place / "vk_swiftshader_icd.json")
    ctypes.CDLL(str(place / "libvulkan.so.1"), mode=ctypes.RTLD_GLOBAL)
