"""The runtimes that our artifacts are compared with and that are no format of ours: one table.

XNNPACK is a peer too; it runs inside our own TFLite and ExecuTorch artifacts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge.toolchains.environments import lock_file

ENVIRONMENT = "bench"
"""The environment that converts, on the host, and in which the host's runtimes live together."""

WHEELS = "aarch64-peers"
"""The wheels that run on 64-bit Arm."""

PRECISION = "fp32"


@dataclass(frozen=True)
class Peer:
    """A runtime.

    Attributes:
        name: of its module in ``edge.bench.converters`` and in ``edge.runtimes``.
        title: for people.
        wheel: of the package that has it.
        note: how it is run, where that is not how it comes; a sentence for people.
    """

    name: str
    title: str
    wheel: str
    note: str = ""

    def version(self, lock: str) -> str | None:
        """The one that is locked there; None where the runtime does not come."""
        text = lock_file(lock).read_text(encoding="utf-8")
        found = re.search(rf"^{re.escape(self.wheel)}==([^\s+]+)", text, re.MULTILINE)
        return found[1] if found else None

    def runtime(self, lock: str) -> str:
        """Its title and version."""
        return f"{self.title} {self.version(lock)}"


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("onnxruntime", "ONNX Runtime", "onnxruntime"),
        Peer(
            "openvino",
            "OpenVINO",
            "openvino",
            "OpenVINO runs one stream for latency and is held to float32; by default it computes in bfloat16 where the "
            "core can.",
        ),
        Peer("ncnn", "ncnn", "ncnn", "ncnn runs with its half-precision options off; by default they are on."),
        Peer(
            "mnn",
            "MNN",
            "mnn",
            "MNN gets GELU as its formula: its importer makes the tanh form of ONNX's GELU operator, which misses the "
            "gate. Its exact GELU calls the C library's erff for each element, whose path depends on the value, so its "
            "figures are this image's.",
        ),
        Peer("inductor", "torch.compile", "torch", "torch.compile has the weights frozen."),
    )
}


def locked(lock: str) -> tuple[Peer, ...]:
    """The peers that come with a lock, in the order of the table."""
    return tuple(peer for peer in PEERS.values() if peer.version(lock))
