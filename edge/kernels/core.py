"""What a kernel's shape depends on: the core's vector unit and its first caches. Nothing asks which core it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.targets import Target

FLOAT32_BITS = 32


@dataclass(frozen=True)
class Core:
    """A core as kernels see it.

    Attributes:
        lanes: float32 values in one vector register.
        registers: how many vector registers there are.
        l1_bytes: the first data cache.
        l2_bytes: the second cache.
        loads_as_operand: an arithmetic instruction may take one operand from memory (x86), so that a broadcast value
            needs no register of its own; otherwise every operand is loaded into a register first.
        software_prefetch: products gain by asking for the weights that come next.
        strassen: large products gain by Strassen's algorithm.
    """

    lanes: int
    registers: int
    l1_bytes: int
    l2_bytes: int
    loads_as_operand: bool
    software_prefetch: bool = False
    strassen: bool = False

    @classmethod
    def of(cls, target: Target) -> Core:
        """The core of a target's profile."""
        return cls(
            lanes=target.core.vector_bits // FLOAT32_BITS,
            registers=target.core.vector_registers,
            l1_bytes=target.caches.l1d_kib * 1024,
            l2_bytes=target.caches.l2_kib * 1024,
            loads_as_operand=target.core.machine == "x86_64",
            software_prefetch=target.core.software_prefetch,
            strassen=target.core.strassen,
        )
