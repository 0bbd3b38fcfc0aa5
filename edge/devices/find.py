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
    if name == "host":
        from edge.devices.host import Host

        return Host()
    if name == "emulated" and target.emulated:
        from edge.devices.emulated import Emulated

        return Emulated(target)
    has_gpu = target.gpu is not None and bool({"Vulkan", "OpenCL"} & set(target.gpu.apis))
    if name == "software-gpu" and has_gpu:
        from edge.devices.software_gpu import SoftwareGpu

        return SoftwareGpu()
    has_opencl = target.gpu is not None and "OpenCL" in target.gpu.apis
    if name == "software-opencl" and has_opencl:
        from edge.devices.software_opencl import SoftwareOpenCl

        return SoftwareOpenCl()
    if kind == "ssh" and address:
        from edge.devices.ssh import Board

        return Board(name)
    if kind == "adb" and address:
        from edge.devices.adb import Phone

        return Phone(address)
    known = ["host", *(["emulated"] if target.emulated else []), *(["software-gpu"] if has_gpu else [])]
    known += ["software-opencl"] if has_opencl else []
    raise UsageError(
        f"there is no device named {name!r} for it",
        stage="verify",
        target=target.name,
        next_step=f"there are {', '.join(known)}, ssh://user@board and adb:<serial>",
    )
