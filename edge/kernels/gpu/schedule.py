"""One schedule for every kernel of a network: ours where the kernel has the form, else TVM's rules, else its fallback.

TVM's rules (DLight) share a sum out among work-items, which suits few and long ones; ours keep whole sums in registers.
Rules end in an assertion on some kernels that are none of theirs, so whatever one raises means that the next is tried.
TVM's fallback takes everything: one element for each work-item, block by block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.s_tir import Schedule, ScheduleError, dlight

from edge.kernels.gpu import convolution, depthwise, reduction
from edge.kernels.gpu.blocks import Refused
from edge.kernels.gpu.device import Device


@dataclass(frozen=True)
class Scheduled:
    """A kernel for a GPU, and what scheduled it."""

    kernel: tirx.PrimFunc
    way: str


def schedule(function: tirx.PrimFunc, target: tvm.target.Target, device: Device) -> Scheduled:
    """Schedule one kernel in the first way that takes it."""
    for name, way in WAYS.items():
        try:
            scheduler = way(function, target, device)
        except (ScheduleError, Refused):
            continue
        if scheduler is not None:
            return Scheduled(scheduler.mod["main"].with_attr("tirx.is_scheduled", True), name)
    raise AssertionError("the fallback takes everything")


Way = Callable[[tirx.PrimFunc, tvm.target.Target, Device], Schedule | None]


def _ours(transform: Callable[[Schedule, Device], None]) -> Way:
    def apply(function: tirx.PrimFunc, target: tvm.target.Target, device: Device) -> Schedule:
        scheduler = Schedule(tvm.IRModule({"main": function}))
        transform(scheduler, device)
        return scheduler

    return apply


def _rule(rule: dlight.ScheduleRule) -> Way:
    def apply(function: tirx.PrimFunc, target: tvm.target.Target, device: Device) -> Schedule | None:
        try:
            return rule.apply(function, target, False)
        except Exception as error:
            raise Refused(f"{type(error).__name__}: {error}") from error

    return apply


WAYS: dict[str, Way] = {
    "depthwise": _ours(depthwise.schedule),
    "convolution": _ours(convolution.schedule),
    "DLight GEMV": _rule(dlight.gpu.GEMV()),
    "DLight Reduction": _rule(dlight.gpu.Reduction()),
    "DLight GeneralReduction": _rule(dlight.gpu.GeneralReduction()),
    "reduction": _ours(reduction.schedule),
    "DLight Fallback": _rule(dlight.gpu.Fallback()),
}
"""In the order in which they are tried."""
