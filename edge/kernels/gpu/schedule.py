"""One schedule for every kernel of a network: ours where the kernel has the form, else TVM's rules, else its fallback.

TVM's rules (DLight) are tried in the order in which they are worth it. Some end in an assertion on kernels that are
none of theirs, so whatever a rule raises means that the next one is tried; its fallback takes everything.
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.s_tir import Schedule, ScheduleError, dlight

from edge.kernels.gpu import convolution, depthwise
from edge.kernels.gpu.blocks import Refused
from edge.kernels.gpu.device import Device

OURS = {"depthwise": depthwise.schedule, "convolution": convolution.schedule}
RULES = (dlight.gpu.GEMV(), dlight.gpu.Reduction(), dlight.gpu.GeneralReduction())
FALLBACK = dlight.gpu.Fallback()


def schedule(function: tirx.PrimFunc, target: tvm.target.Target, device: Device) -> tuple[tirx.PrimFunc, str]:
    """Schedule one kernel.

    Returns:
        The kernel, and what scheduled it: a name of ours, or "DLight" with the name of its rule.
    """
    for name, ours in OURS.items():
        scheduler = Schedule(tvm.IRModule({"main": function}))
        try:
            ours(scheduler, device)
        except (ScheduleError, Refused):
            continue
        return _finished(scheduler), name
    for rule in RULES:
        try:
            scheduled = rule.apply(function, target, False)
        except Exception:
            continue
        if scheduled is not None:
            return _finished(scheduled), f"DLight {type(rule).__name__}"
    return _finished(FALLBACK.apply(function, target, False)), "DLight Fallback"


def _finished(scheduler: Schedule) -> tirx.PrimFunc:
    return scheduler.mod["main"].with_attr("tirx.is_scheduled", True)
