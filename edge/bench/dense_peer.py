"""What a dense kernel with a long reach costs through the best peer: the yardstick of shift-wise convolution.

Runtimes take networks, so the operator is one: a stem that makes the feature map of a picture, with a thousandth of the
multiply-adds, and the convolution. It goes through the same export, checks and comparison as any network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edge.bench.bench import bench
from edge.bench.results import best_peer
from edge.errors import ExportError
from edge.progress import Reporter
from edge.request import Request
from edge.targets import Target

STEM_STRIDE = 4


@dataclass(frozen=True)
class DensePeer:
    """The best peer.

    Attributes:
        runtime: with its version.
        cost: modelled cycles, or seconds.
    """

    runtime: str
    cost: float


def dense_peer(target: Target, channels: int, side: int, reach: int, out: Path, reporter: Reporter) -> DensePeer:
    """Compare the peers on a depthwise convolution, in float32.

    Args:
        target: emulated, or this host's kind.
        channels: of the feature map.
        side: of the feature map.
        reach: side of the kernel, odd.
        out: the folder that gets the network and ``<target>/<network>/``.
        reporter: shows progress.

    Raises:
        EdgeError: see ``edge.bench.bench``.
        ExportError: no peer could do it.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, channels, 1, stride=STEM_STRIDE),
        nn.Conv2d(channels, channels, reach, padding=reach // 2, groups=channels),
    )
    file = out / f"depthwise_{reach}x{reach}.pt2"
    out.mkdir(parents=True, exist_ok=True)
    picture = torch.zeros(1, 3, STEM_STRIDE * side, STEM_STRIDE * side)
    torch.export.save(torch.export.export(network.eval(), (picture,)), file)
    found = bench(Request(str(file), target, precisions=("fp32",), out=out), reporter)
    best = best_peer(found.rows, found.by)
    cost = best.figure(found.by) if best else None
    if best is None or cost is None:
        raise ExportError(
            "no peer computes the dense kernel",
            stage="bench",
            model=file.stem,
            target=target.name,
            next_step=f"see {out / target.name / file.stem}",
        )
    return DensePeer(best.runtime, cost if found.by == "modelled_cycles" else cost / 1e3)
