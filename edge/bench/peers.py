"""The runtimes that our artifacts are compared with and that are no format of ours: one table.

XNNPACK is a peer too; it runs inside our own TFLite and ExecuTorch artifacts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge.toolchains.environments import lock_file

CONVERTERS = "peers"
"""The environment that converts, on the host."""

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

    @property
    def version(self) -> str:
        """The locked one."""
        lock = lock_file(WHEELS).read_text(encoding="utf-8")
        found = re.search(rf"^{re.escape(self.wheel)}==(\S+)", lock, re.MULTILINE)
        assert found, f"{self.wheel} is locked"
        return found[1]


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("onnxruntime", "ONNX Runtime", "onnxruntime"),
        Peer("ncnn", "ncnn", "ncnn", "ncnn runs with its half-precision options off; by default they are on."),
        Peer(
            "mnn",
            "MNN",
            "mnn",
            "MNN gets GELU as its formula: its importer makes the tanh form of ONNX's GELU operator, which misses the "
            "gate. Its exact GELU calls the C library's erff for each element, whose path depends on the value, so its "
            "counts are this image's.",
        ),
    )
}
