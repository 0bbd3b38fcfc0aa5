"""Where int8 ends: the activations' ranges, by the rule that does better on samples whose ranges were not observed.

PT2E knows two rules. The histogram's range minimises the rounding of what was observed, and clips the rare large values
for it: usually the better one by 1 to 3 dB. An image that reaches further than the calibration samples pays for that
with everything it has: 8 dB in EfficientFormerV2. The range from the smallest to the largest observed value clips less
and rounds everything coarser. Which one a network needs is measured by cross-validation: each half of the calibration
samples is judged with the ranges of the other half.

Layers that int8 cannot do without losing the network hide that difference: with them in int8 ShiftwiseConv is at 5 dB
by either rule. So where some are to stay in float, the rules are judged once more without them; and where one rule
would leave too much in float, the other one is tried.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch.export import ExportedProgram
from torch.fx import GraphModule

from edge.backends.executorch_quantize import RANGE_RULES, Samples, observe, with_blurred, with_observers
from edge.backends.executorch_simulation import Exact, PreparedSimulation
from edge.quantisation.search import Choice, Layer, Reached, choose, reached

_LOG = logging.getLogger(__name__)

HeldOut = dict[str, Reached]


@dataclass(frozen=True)
class Precision:
    """How the activations' ranges are taken from what is observed, and which layers stay in float.

    Attributes:
        rule: one of ``RANGE_RULES``.
        held_out: by the rule's name, the worst sample with ranges that others gave.
        layers: that could stay in float.
        choice: of those that do.
        observed: the program with the rule's observers, which saw all calibration samples.
    """

    rule: str
    held_out: HeldOut
    layers: tuple[Layer, ...]
    choice: Choice
    observed: GraphModule


def choose_precision(program: Callable[[], ExportedProgram], calibration: Samples, gate_db: float) -> Precision:
    """Choose the rule whose worst held-out sample is the better one, and with it the layers that stay in float.

    Args:
        program: gives a float32 program whose graph may be used up.
        calibration: at least two samples, each a tuple of the program's inputs; neighbours are often one scene, so the
            halves are the first and the last ones.
        gate_db: the target's gate of int8's SQNR.
    """
    rules = _Rules(program, calibration, gate_db)
    held_out = rules.held_out(frozenset())
    first = rules.precision(_best(held_out), held_out)
    if not (first.choice.kept or first.choice.refused):
        return first
    if first.choice.kept:
        held_out = rules.held_out(first.choice.names)
        if _best(held_out) == first.rule:
            return replace(first, held_out=held_out)
    (other,) = held_out.keys() - {first.rule}
    second = rules.precision(other, held_out)
    return first if second.choice.refused else second


class _Rules:
    """Every rule, with the ranges that each half of the samples gives, judged by the other half."""

    def __init__(self, program: Callable[[], ExportedProgram], calibration: Samples, gate_db: float) -> None:
        middle, end = len(calibration) // 2, len(calibration)
        halves = range(middle), range(middle, end)
        self._calibration, self._judged = calibration, with_blurred(calibration)
        self._gate_db = gate_db
        self._exact: Exact = {}
        self._prepared = {rule: with_observers(program(), rule) for rule in RANGE_RULES}
        self._crossed = {rule: [self._of_half(rule, *each) for each in (halves, halves[::-1])] for rule in RANGE_RULES}

    def held_out(self, kept: frozenset[str]) -> HeldOut:
        """By the rule's name, the worst sample with ranges that others gave and these layers in float."""
        held_out: HeldOut = {}
        for rule, crossed in self._crossed.items():
            held_out[rule] = min(
                min(reached(self._simulation(observed), self._gate_db, kept, unseen)) for observed, unseen in crossed
            )
            _LOG.info("with ranges by %s of other samples gives %.1f dB", rule, held_out[rule].sqnr_db)
        return held_out

    def precision(self, rule: str, held_out: HeldOut) -> Precision:
        """A rule with the ranges of all samples, and the layers that it needs in float."""
        _LOG.info("observing the ranges of all samples by %s", rule)
        observed = observe(_apart(self._prepared[rule]), rule, self._calibration)
        simulation = self._simulation(observed)
        return Precision(rule, held_out, simulation.layers, choose(simulation, self._gate_db), observed)

    def _of_half(self, rule: str, seen: Sequence[int], unseen: Sequence[int]) -> tuple[GraphModule, Sequence[int]]:
        _LOG.info("observing the ranges of %d samples by %s", len(seen), rule)
        samples = [self._calibration[index] for index in seen]
        out_of_focus = [len(self._calibration) + index for index in unseen]
        return observe(_apart(self._prepared[rule]), rule, samples), [*unseen, *out_of_focus]

    def _simulation(self, observed: GraphModule) -> PreparedSimulation:
        return PreparedSimulation(observed, self._judged, self._exact, blurred=len(self._calibration))


def _best(held_out: HeldOut) -> str:
    return max(held_out, key=held_out.__getitem__)


def _apart(prepared: GraphModule) -> GraphModule:
    """A copy with observers of its own, which shares the weights."""
    return copy.deepcopy(prepared, {id(weight): weight for weight in prepared.parameters()})
