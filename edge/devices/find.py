"""Which device a name means."""

from __future__ import annotations

from edge.devices import Device
from edge.errors import UsageError
from edge.targets import Target


def find(name: str, target: Target) -> Device:
    """The device of that name, for artifacts of a target.

    Raises:
        UsageError: there is no such device, or the target has none of its kind.
    """
    kind, _, address = name.partition(":")
    apis = set(target.gpu.apis) if target.gpu else set()
    own = {
        "host": True,
        "emulated": target.emulated is not None,
        "software-gpu": bool(apis & {"Vulkan", "OpenCL"}),
        "software-opencl": "OpenCL" in apis,
    }
    if own.get(name):
        return _own(name, target)
    if kind == "ssh" and address:
        from edge.devices.ssh import Board

        return Board(name)
    if kind == "adb" and address:
        from edge.devices.adb import Phone

        return Phone(address)
    known = [device for device, has in own.items() if has]
    raise UsageError(
        f"there is no device named {name!r} for it",
        stage="verify",
        target=target.name,
        next_step=f"there are {', '.join(known)}, ssh://user@board and adb:<serial>",
    )


def _own(name: str, target: Target) -> Device:
    """A device that this machine has; what it imports is heavy."""
    if name == "host":
        from edge.devices.host import Host

        return Host()
    if name == "emulated":
        from edge.devices.emulated import Emulated

        return Emulated(target)
    if name == "software-gpu":
        from edge.devices.software_gpu import SoftwareGpu

        return SoftwareGpu()
    from edge.devices.software_opencl import SoftwareOpenCl

    return SoftwareOpenCl()
