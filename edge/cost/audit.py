"""The instruction audit: what was executed that the target's core lacks, and in which precision it really multiplied.

An emulator's core may have more than the device's: the Cortex-A72 that QEMU knows has AES instructions, the one in a
Raspberry Pi has none. So every executed word is read once more with the target's own features and no others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from edge.cost.counter import Profile
from edge.cost.instructions import PRECISION_OF, Instruction, decode, disassemble
from edge.cost.places import Place, Places

REMARKABLE = 0.5


@dataclass(frozen=True)
class Lacking:
    """Instructions of one mnemonic in one function that the core lacks.

    Attributes:
        text: the most executed of them.
        words: how many different ones there are.
        executions: of all of them.
        place: of the one in ``text``.
    """

    text: str
    words: int
    executions: int
    place: Place

    def __str__(self) -> str:
        others = f" and {self.words - 1} like it" if self.words > 1 else ""
        return f"{self.text}{others}, executed {self.executions:,} times at {self.place}"


@dataclass(frozen=True)
class Audit:
    """What an artifact executed.

    Attributes:
        lacking: what the core lacks, the most executed first.
        multiplications: of elements, by how they were executed, a key of ``PRECISION_OF``; none without any.
    """

    lacking: tuple[Lacking, ...]
    multiplications: dict[str, int]

    @property
    def ran(self) -> str:
        """How most elements were multiplied: "fp32 FMA", "integer dot product"; empty where nothing was."""
        return max(self.multiplications, key=lambda how: self.multiplications[how], default="")

    @property
    def precision(self) -> str:
        """The precision of that, empty where nothing was multiplied."""
        return PRECISION_OF.get(self.ran, "")

    @property
    def reason(self) -> str:
        """Why the artifact fails, empty if it does not."""
        if not self.lacking:
            return ""
        others = f"; {len(self.lacking) - 1} more places" if len(self.lacking) > 1 else ""
        return f"executes instructions the core lacks: {self.lacking[0]}{others}"

    def remark(self, precision: str) -> str:
        """A word on an artifact that multiplies in another precision than its own, empty if most of it does not."""
        share = _share_of(precision, self.multiplications)
        if not self.multiplications or share > REMARKABLE:
            return ""
        return f"{1 - share:.0%} of its multiplications are not {precision}: most ran as {self.ran}"


def _share_of(precision: str, multiplications: dict[str, int]) -> float:
    own = sum(count for how, count in multiplications.items() if PRECISION_OF[how] == precision)
    return own / max(sum(multiplications.values()), 1)


def audit(profile: Profile, places: Places, features: Iterable[str]) -> Audit:
    """Read every executed instruction with the features of the target's core.

    Args:
        profile: of one inference.
        places: of the same run.
        features: the core's, in LLVM's names.
    """
    executions = profile.executions()
    instructions = decode(executions)
    known = disassemble(executions, ("v8a", *features))
    lacking = _lacking(profile, places, {word for word, text in known.items() if text is None}, instructions)
    return Audit(lacking, multiplications(executions, instructions))


def multiplications(executions: Counter[int], instructions: dict[int, Instruction]) -> dict[str, int]:
    """Multiplications of elements, by how they were executed."""
    counts: Counter[str] = Counter()
    for word, count in executions.items():
        counts[instructions[word].multiplies] += count * instructions[word].elements
    return {how: counts[how] for how in PRECISION_OF if counts[how]}


def _lacking(
    profile: Profile, places: Places, words: set[int], instructions: dict[int, Instruction]
) -> tuple[Lacking, ...]:
    found: defaultdict[tuple[str, str, str], Counter[tuple[int, Place]]] = defaultdict(Counter)
    for block in profile.blocks:
        for index, word in enumerate(block.words):
            if word in words:
                place = places.find(block.address + 4 * index)
                mnemonic = instructions[word].text.split()[0]
                found[mnemonic, place.library, place.function][word, place] += block.executions
    groups = [
        Lacking(
            text=instructions[group.most_common(1)[0][0][0]].text,
            words=len({word for word, _ in group}),
            executions=group.total(),
            place=group.most_common(1)[0][0][1],
        )
        for group in found.values()
    ]
    return tuple(sorted(groups, key=lambda group: -group.executions))
