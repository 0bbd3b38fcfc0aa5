"""Any other single reduction on a GPU, such as pooling: one work-item for each element of the result.

TVM's fallback keeps the running value in the result itself, in memory. Here it stays in a register.
"""

from __future__ import annotations

from tvm.s_tir import Schedule

from edge.kernels.gpu import blocks
from edge.kernels.gpu.device import Device


def schedule(scheduler: Schedule, device: Device) -> None:
    """Schedule a fused kernel with one reduction.

    Raises:
        Refused: it has none, or several.
    """
    before, reduction, result = blocks.single_reduction(scheduler)
    for block in before:
        scheduler.compute_inline(block)
    group, item = scheduler.split(scheduler.fuse(*scheduler.get_loops(result)), [None, device.group])
    scheduler.bind(group, "blockIdx.x")
    scheduler.bind(item, "threadIdx.x")
    scheduler.compute_at(reduction, item, preserve_unit_loops=True)
    steps = blocks.axes(scheduler, reduction).count(blocks.REDUCTION)
    scheduler.decompose_reduction(reduction, scheduler.get_loops(reduction)[-steps])
