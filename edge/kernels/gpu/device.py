"""What a GPU's schedule depends on. Nothing asks which GPU it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A GPU as schedules see it; the defaults suit every phone's GPU that this project knows.

    Attributes:
        lanes: elements that one load or store moves: 16 bytes of float32, and one of OpenCL's own vectors.
        group: work-items in a group; a multiple of what the hardware executes together (16 on Mali, 64 on Adreno, 32 on
            Apple's), and small enough for kernels that need many registers.
        vectors: what a work-item may keep in registers, in vectors of four: Mali gives it 64 registers of 32 bits, and
            addresses need some.
        items: work-items that keep it busy; a result is not cut into larger pieces than leaves so many.
    """

    lanes: int = 4
    group: int = 64
    vectors: int = 14
    items: int = 1024
