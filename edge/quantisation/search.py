"""Find the layers that a low precision cannot do without losing the network, so that those alone stay in float32.

The precision is int8, or float16 where that rounds too much. Some layers have no good int8 form: the variance inside a
normalisation spans orders of magnitude from one position to the next, and one scale for the whole tensor rounds most of
it to nothing. Which layers these are is measured, not guessed: each backend can simulate its own rounding with any set
of layers kept in float, and the search asks it

  1. whether the low precision throughout is good enough: then nothing is kept and nothing else is done;
  2. for the noise that each kind of operator adds alone, all others in float; the noisiest kinds are kept until the
     goal is reached, those last that are not noisy enough to spoil it alone and have too many multiply-adds;
  3. for the noisiest layers of these kinds, each alone; of the layers in order of their noise, the shortest beginning
     that reaches the goal is kept. They are found by dividing: all layers of a kind together, then a quarter of them,
     and so on where the noise is. What adds little together adds less alone and is not divided;
  4. for each of those, the least noisy first, whether the others are enough without it;
  5. where they have more multiply-adds than may stay in float, 3 and 4 again with the layers of all kinds, in order of
     the noise per multiply-add.

In a network of thousands of operators neighbours of one kind stay together, so that the search takes minutes and not
hours.

The noise is measured with the layer alone in the low precision, not with it alone in float: where five layers are each
enough to spoil the result, freeing one of them changes nothing.

What is asked for is the calibration samples' SQNR against the float program, of those as they are and of those out of
focus (``edge.calibration.focus``). The check samples are for the gate. All calibration samples say whether the low
precision throughout is good enough; those that it does worst on decide the rest. All are asked again at the end, and
where some that did not decide miss the goal then, the search begins anew with those among them. It may end worse than
it began, so the best of what it found is taken.
"""

from __future__ import annotations

import logging
import math
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import NamedTuple, Protocol

MARGIN_DB = 1.5
"""How far over the gate the calibration samples have to come: the check samples, which are others, may be worse."""

BLURRED_MARGIN_DB = 0.75
"""The same for those out of focus, which are worse already. The backend's kernels round otherwise than its simulation,
by up to 1 dB in a sample, so that they need some, too."""

LARGEST_FLOAT_SHARE = 0.25
"""Of the network's multiply-adds. An artifact that computes more than this in float has not its name's precision."""

GROUPS = 64
"""Layers, or groups of neighbouring ones, that are told apart at most."""

PARTS = 4
"""Into which neighbours are divided to find the noisiest: two would be asked for more often where many are noisy."""

HARDEST = 8
"""Calibration samples that decide: those that the low precision throughout does worst on."""

OVERLOOKED = 4
"""Samples that decide, too, if they are the worst once the layers that spoil the others are in float."""

ROUNDS = 3
"""Searches at most."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layer:
    """One operator that a backend would compute in the low precision.

    Attributes:
        name: its place in the network; unique.
        kind: of operator, by the backend's name.
        multiply_adds: of one inference; 0 for what is no convolution and no matrix product.
        place: where to look for it: the path of its module in the network, or its position in the file.
    """

    name: str
    kind: str
    multiply_adds: int = 0
    place: str = ""


class Simulation(Protocol):
    """A backend's rounding of one network to a low precision, with any layers kept in float."""

    @property
    def layers(self) -> Sequence[Layer]:
        """In the order of the network."""

    @property
    def samples(self) -> int:
        """How many calibration samples there are."""

    @property
    def blurred(self) -> int:
        """How many of the last of them are out of focus."""

    def sqnr_db(self, kept: frozenset[str], samples: Sequence[int]) -> Iterator[float]:
        """Of each of these calibration samples against the float program, in dB; of several outputs the worst.

        Each is computed when it is asked for.

        Args:
            kept: names of the layers that stay in float.
            samples: their positions in the calibration set.
        """


class Reached(NamedTuple):
    """What one calibration sample reached. Of two, the smaller one lacks more of what is asked of it.

    Attributes:
        spare_db: by how much the SQNR is over the goal.
        sqnr_db: against the float program.
        goal_db: the gate and the sample's margin.
    """

    spare_db: float
    sqnr_db: float
    goal_db: float

    @property
    def enough(self) -> bool:
        """Whether the goal is reached."""
        return self.spare_db >= 0


def reached(simulation: Simulation, gate_db: float, kept: frozenset[str], samples: Sequence[int]) -> Iterator[Reached]:
    """Of each of these calibration samples, with these layers in float; computed when it is asked for."""
    sharp = simulation.samples - simulation.blurred
    for sample, sqnr_db in zip(samples, simulation.sqnr_db(kept, samples), strict=True):
        goal_db = gate_db + (MARGIN_DB if sample < sharp else BLURRED_MARGIN_DB)
        yield Reached(sqnr_db - goal_db, sqnr_db, goal_db)


Group = tuple[Layer, ...]
"""Layers of one kind that the search keeps in float or not together; one, in a network that is not too large."""


@dataclass(frozen=True)
class Kept:
    """A layer that stays in float.

    Attributes:
        layer: the layer.
        alone_db: SQNR of the network with this layer, or its group, alone in the low precision.
    """

    layer: Layer
    alone_db: float


@dataclass(frozen=True)
class _Ranked:
    """A group, or more of its kind, and the SQNR of the network with that alone in the low precision."""

    group: Group
    alone_db: float


@dataclass(frozen=True)
class Choice:
    """What the search decided.

    Attributes:
        before: the worst sample, with no layer in float.
        after: the worst sample, with those in float that are kept.
        kept: the noisiest first; empty where none is needed, or nothing helps.
        refused: why nothing is kept though the goal is missed; "" if it is reached.
    """

    before: Reached
    after: Reached
    kept: tuple[Kept, ...] = ()
    refused: str = ""

    @property
    def names(self) -> frozenset[str]:
        """Of the layers that stay in float."""
        return _names(self.kept)


@dataclass(frozen=True)
class _Judge:
    """A simulation, the gate and the samples that decide, the hardest first."""

    simulation: Simulation
    gate_db: float
    hardest: tuple[int, ...]

    def worst(self, kept: frozenset[str]) -> Reached:
        """Of the samples, with these layers in float."""
        return min(reached(self.simulation, self.gate_db, kept, self.hardest))

    def are_enough(self, kept: frozenset[str]) -> bool:
        """Whether every sample reaches its goal with these layers in float; the first that does not ends it."""
        return all(each.enough for each in reached(self.simulation, self.gate_db, kept, self.hardest))

    def alone(self, layers: Sequence[Layer]) -> Reached:
        """The hardest sample with these layers in the low precision and all others in float.

        It is asked for many times, puts kinds and layers in order, and decides nothing: one sample will do.
        """
        others = {layer.name for layer in self.simulation.layers} - {layer.name for layer in layers}
        return next(reached(self.simulation, self.gate_db, frozenset(others), self.hardest[:1]))


def choose(simulation: Simulation, gate_db: float) -> Choice:
    """Choose the layers that stay in float. What is found on the way is logged.

    Args:
        simulation: of the network.
        gate_db: the target's gate of the SQNR in the low precision.
    """
    everything = range(simulation.samples)
    throughout = list(reached(simulation, gate_db, frozenset(), everything))
    before = min(throughout)
    best = Choice(before, before)
    if before.enough:
        return best
    _LOG.info("throughout gives %.1f dB, %.1f dB are needed: looking for the layers to blame", *before[1:])
    deciding = tuple(sorted(everything, key=throughout.__getitem__)[:HARDEST])
    for _ in range(ROUNDS):
        kept = _search(_Judge(simulation, gate_db, deciding))
        if refused := _refusal(_share(simulation, kept)):
            if best.kept and best.after.sqnr_db >= gate_db:
                return best  # it holds the gate: too much would stay for the margin alone
            return Choice(before, before, refused=refused)
        found = list(reached(simulation, gate_db, _names(kept), everything))
        after = min(found)
        best = max(best, Choice(before, after, kept), key=lambda choice: choice.after)
        _LOG.info("with %d of %d layers in float gives %.1f dB", len(kept), len(simulation.layers), after.sqnr_db)
        missing = {sample for sample in everything if not found[sample].enough}
        overlooked = sorted(missing.difference(deciding), key=found.__getitem__)[:OVERLOOKED]
        if not overlooked:
            break
        _LOG.info("samples that did not decide miss the goal: once more, with the worst of them")
        deciding = (*overlooked, *deciding)
    return best


def _refusal(share: float) -> str:
    """Why so much of the multiply-adds cannot stay in float; "" if it can."""
    if share <= LARGEST_FLOAT_SHARE:
        return ""
    return (
        f"mixed precision would leave at least {share:.0%} of the multiply-adds in float, and "
        f"{LARGEST_FLOAT_SHARE:.0%} is the most that may stay"
    )


def _search(judge: _Judge) -> tuple[Kept, ...]:
    """The layers that the samples that decide need in float."""
    kept = _fewest(judge, _noisiest_first(judge, _suspects(judge)))
    share = _share(judge.simulation, kept)
    if share > LARGEST_FLOAT_SHARE:
        _LOG.info(
            "needs at least %.0f %% of the multiply-adds in float: searching by noise per multiply-add", 100 * share
        )
        kept = _fewest(judge, iter(sorted(_measured(judge, judge.simulation.layers), key=_price)))
    return kept


def float_share(layers: Sequence[Layer], kept: Sequence[Layer]) -> float:
    """Share of the network's multiply-adds that the kept layers have."""
    return sum(layer.multiply_adds for layer in kept) / max(sum(layer.multiply_adds for layer in layers), 1)


def _share(simulation: Simulation, kept: Sequence[Kept]) -> float:
    return float_share(simulation.layers, [each.layer for each in kept])


def _names(kept: Sequence[Kept]) -> frozenset[str]:
    return frozenset(each.layer.name for each in kept)


def _as_kept(ranked: Sequence[_Ranked]) -> tuple[Kept, ...]:
    return tuple(Kept(layer, each.alone_db) for each in ranked for layer in each.group)


def _together(ranked: Iterable[_Ranked]) -> frozenset[str]:
    return frozenset(layer.name for each in ranked for layer in each.group)


def _group_size(kinds: Sequence[Group]) -> int:
    """The fewest neighbours of one kind in a group that ``GROUPS`` allows."""
    size = 1
    while sum(math.ceil(len(layers) / size) for layers in kinds) > max(GROUPS, len(kinds)):
        size += 1
    return size


def _in_rows(layers: Group, length: int) -> list[Group]:
    """Layers in rows of so many neighbours; the last one may be shorter."""
    return [layers[start : start + length] for start in range(0, len(layers), length)]


def _suspects(judge: _Judge) -> list[_Ranked]:
    """All layers of the kinds that must be kept, until the goal is reached.

    The noisiest kind comes first. One that has too many multiply-adds to stay in float as a whole, and does not miss
    the goal alone, comes after all others: they may be enough.
    """
    everything = judge.simulation.layers
    kinds = dict.fromkeys(layer.kind for layer in everything)
    by_kind = {kind: tuple(layer for layer in everything if layer.kind == kind) for kind in kinds}
    alone = {kind: judge.alone(layers) for kind, layers in by_kind.items()}
    avoidable = {
        kind: alone[kind].enough and float_share(everything, layers) > LARGEST_FLOAT_SHARE
        for kind, layers in by_kind.items()
    }
    suspects: list[_Ranked] = []
    for kind in sorted(kinds, key=lambda kind: (avoidable[kind], alone[kind])):
        suspects.append(_Ranked(by_kind[kind], alone[kind].sqnr_db))
        worst = judge.worst(_together(suspects))
        _LOG.info("of %s alone gives %.1f dB; without it as well, %.1f dB", kind, alone[kind].sqnr_db, worst.sqnr_db)
        if worst.enough:
            break
    return suspects


def _noisiest_first(judge: _Judge, kinds: Sequence[_Ranked]) -> Iterator[_Ranked]:
    """The groups of these kinds in order of their noise, each measured when the order needs it."""
    size = _group_size([kind.group for kind in kinds])
    _LOG.info("dividing %d layers, where the noise is, down to %d", sum(len(kind.group) for kind in kinds), size)
    waiting = sorted(kinds, key=_noise)
    while waiting:
        noisiest = waiting.pop(0)
        groups = math.ceil(len(noisiest.group) / size)
        if groups == 1:
            yield noisiest
            continue
        for part in _in_rows(noisiest.group, math.ceil(groups / PARTS) * size):
            insort(waiting, _measured_alone(judge, part), key=_noise)


def _measured(judge: _Judge, layers: Sequence[Layer]) -> list[_Ranked]:
    """All groups of these layers."""
    by_kind = sorted(layers, key=lambda layer: layer.kind)
    kinds = [tuple(layers) for _, layers in groupby(by_kind, key=lambda layer: layer.kind)]
    size = _group_size(kinds)
    groups = [group for kind in kinds for group in _in_rows(kind, size)]
    _LOG.info("measuring %d layers in %d groups", len(layers), len(groups))
    return [_measured_alone(judge, group) for group in groups]


def _measured_alone(judge: _Judge, group: Group) -> _Ranked:
    return _Ranked(group, judge.alone(group).sqnr_db)


def _noise(ranked: _Ranked) -> float:
    """The noisiest is the first."""
    return ranked.alone_db


def _price(ranked: _Ranked) -> tuple[float, float]:
    """Multiply-adds for each unit of noise, and where there are none the noise: the least is the best to keep."""
    return sum(layer.multiply_adds for layer in ranked.group) * 10 ** (ranked.alone_db / 10), ranked.alone_db


def _fewest(judge: _Judge, ranked: Iterator[_Ranked]) -> tuple[Kept, ...]:
    """The layers that the goals need, of groups in the order in which they are to be kept.

    Where they have more multiply-adds than may stay in float, those of them that were found until that was clear.
    """
    shortest = _shortest(judge, ranked)
    _LOG.info("the first %d are enough: asking for each whether it is needed", len(shortest))
    return _as_kept(_without_needless(judge, shortest))


def _shortest(judge: _Judge, ranking: Iterator[_Ranked]) -> Sequence[_Ranked]:
    """The shortest beginning of a ranking that is enough, by doubling and bisection; all of it is."""
    ranked: list[_Ranked] = []
    few = 0
    while more := list(islice(ranking, max(len(ranked), 1))):
        few = len(ranked)
        ranked += more
        if judge.are_enough(_together(ranked)):
            break
    many = len(ranked)
    while many - few > 1:
        middle = (few + many) // 2
        if judge.are_enough(_together(ranked[:middle])):
            many = middle
        else:
            few = middle
    return ranked[:many]


def _without_needless(judge: _Judge, kept: Sequence[_Ranked]) -> tuple[_Ranked, ...]:
    """Only those without which a goal would be missed; the last are asked first, until there are too many."""
    needed, unasked = list[_Ranked](), list(kept)
    while unasked and _share(judge.simulation, _as_kept(needed)) <= LARGEST_FLOAT_SHARE:
        candidate = unasked.pop()
        if not judge.are_enough(_together([*unasked, *needed])):
            needed.insert(0, candidate)
    return tuple(needed)
