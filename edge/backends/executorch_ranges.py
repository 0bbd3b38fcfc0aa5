"""Where int8 ends: the activations' ranges, by the rule that does better on samples whose ranges were not observed.

PT2E knows two rules. The histogram's range minimises the rounding of what was observed, and clips the rare large values
for it: usually the better one by 1 to 3 dB. An image that reaches further than the calibration samples pays for that
with everything it has: 8 dB in EfficientFormerV2. The range from the smallest to the largest observed value clips less
and rounds everything coarser. Which one a network needs is measured by cross-validation: each half of the calibration
samples is judged with the ranges of the other half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.export import ExportedProgram

from edge.backends.executorch_quantize import RANGE_RULES, Samples, observe
from edge.backends.executorch_simulation import PreparedSimulation


@dataclass(frozen=True)
class Ranges:
    """How the activations' ranges are taken from what is observed.

    Attributes:
        rule: one of ``RANGE_RULES``.
        held_out_db: by the rule's name, the worst sample's SQNR with ranges that others gave.
    """

    rule: str
    held_out_db: dict[str, float]


def choose_ranges(program: Callable[[], ExportedProgram], calibration: Samples) -> Ranges:
    """Choose the rule whose worst held-out sample is the better one.

    Args:
        program: gives a float32 program whose graph may be used up.
        calibration: at least two samples; neighbours, which are often one scene, stay in one half.
    """
    middle = len(calibration) // 2
    halves = (calibration[:middle], calibration[middle:])
    held_out = {
        rule: min(
            min(PreparedSimulation(observe(program(), seen, rule), unseen).sqnr_db(frozenset(), range(len(unseen))))
            for seen, unseen in (halves, halves[::-1])
        )
        for rule in RANGE_RULES
    }
    return Ranges(max(held_out, key=held_out.__getitem__), held_out)
