"""Where int8 ends: the activations' ranges, by the rule that does better on samples whose ranges were not observed.

PT2E knows two rules. The histogram's range minimises the rounding of what was observed, and clips the rare large values
for it: usually the better one by 1 to 3 dB. An image that reaches further than the calibration samples pays for that
with everything it has: 8 dB in EfficientFormerV2. The range from the smallest to the largest observed value clips less
and rounds everything coarser. Which one a network needs is measured by cross-validation: each half of the calibration
samples is judged with the ranges of the other half.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.export import ExportedProgram
from torch.fx import GraphModule

from edge.backends.executorch_quantize import RANGE_RULES, Samples, observe, with_observers
from edge.backends.executorch_simulation import Exact, PreparedSimulation


@dataclass(frozen=True)
class Ranges:
    """How the activations' ranges are taken from what is observed.

    Attributes:
        rule: one of ``RANGE_RULES``.
        held_out_db: by the rule's name, the worst sample's SQNR with ranges that others gave.
        observed: the program with the rule's observers, which saw all calibration samples.
        exact: of the calibration samples.
    """

    rule: str
    held_out_db: dict[str, float]
    observed: GraphModule
    exact: Exact


def choose_ranges(program: Callable[[], ExportedProgram], calibration: Samples) -> Ranges:
    """Choose the rule whose worst held-out sample is the better one.

    Args:
        program: gives a float32 program whose graph may be used up.
        calibration: at least two samples, each a tuple of the program's inputs; neighbours are often one scene, so the
            halves are the first and the last ones.
    """
    exact: Exact = {}

    def held_out_db(rule: str, seen: Sequence[int], unseen: Sequence[int]) -> float:
        """The SQNR of the worst sample that the observers did not see."""
        observed = observe(copy.deepcopy(prepared[rule]), rule, [calibration[index] for index in seen])
        return min(PreparedSimulation(observed, calibration, exact).sqnr_db(frozenset(), unseen))

    middle, end = len(calibration) // 2, len(calibration)
    halves = range(middle), range(middle, end)
    prepared = {rule: with_observers(program(), rule) for rule in RANGE_RULES}
    held_out = {rule: min(held_out_db(rule, *each) for each in (halves, halves[::-1])) for rule in RANGE_RULES}
    best = max(held_out, key=held_out.__getitem__)
    return Ranges(best, held_out, observe(prepared[best], best, calibration), exact)
