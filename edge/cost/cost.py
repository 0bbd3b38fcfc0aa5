"""The cost of one inference on the target's core, as counted on the emulated core and modelled by LLVM."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edge.cost import cycles
from edge.cost.audit import Audit, audit
from edge.cost.counter import Memory, Profile
from edge.cost.cycles import Modelled
from edge.cost.instructions import CLASSES, FMA_FP16, FMA_FP32, PRECISION_OF, Instruction, decode
from edge.cost.places import Places
from edge.cost.spots import Spot, hottest
from edge.errors import SetupError
from edge.targets import Target

HOTTEST = 10

UNKNOWN = (
    "Modelled cycles are no time: every load hits the first cache, every branch is foreseen, instructions are always "
    "at hand, and each block of code is taken as followed by itself.",
    "The caches are modelled apart: by virtual address, least recently used out first, no prefetching, nobody else's "
    "data. What a miss costs is not modelled.",
    "Kernels on the device may be others: the operating system, other threads and the clock are not there.",
)


@dataclass(frozen=True)
class Cost:
    """What one inference costs.

    Attributes:
        instructions: executed.
        classes: instructions by class, see ``edge.cost.instructions``; classes that do not occur are left out.
        vector_fma: vector multiply-add instructions in floating point.
        memory: data traffic and misses in caches of the target's sizes; None where they were not modelled.
        modelled_cycles: in LLVM's model of the core's pipeline.
        floor_cycles: the network's multiply-adds at the core's peak in the precision that most of them ran in; None
            where the target's profile has no peak for it.
        share_of_floor: floor / modelled cycles; 1 is the core's peak.
        scheduling_model: LLVM's name of the core whose model it is.
        audit: what was executed that the core lacks, and in which precisions it multiplied.
        hottest: where the modelled cycles are spent, the hottest first.
        unknown: what these figures do not know, as sentences.
    """

    instructions: int
    classes: dict[str, int]
    vector_fma: int
    memory: Memory | None
    modelled_cycles: int
    floor_cycles: int | None
    share_of_floor: float | None
    scheduling_model: str
    audit: Audit
    hottest: tuple[Spot, ...]
    unknown: tuple[str, ...]


def cost(profile: Profile, places: Places, target: Target, macs: int) -> Cost:
    """Work out what a counted inference costs.

    Args:
        profile: of one inference.
        places: of the same run.
        target: has an ``[emulated]`` table.
        macs: the network's multiply-adds, for the floor.

    Raises:
        SetupError: LLVM has no model of that name, or failed.
    """
    assert target.emulated is not None
    executions = profile.executions()
    if not executions:
        raise SetupError(
            "nothing was executed between the markers",
            stage="cost",
            target=target.name,
            next_step="remove .edge/runners, so that the runners are built again",
        )
    instructions = decode(executions)
    model = target.emulated.scheduling_model
    modelled = cycles.model((block.words for block in profile.blocks), instructions, model)
    total = round(sum(block.executions * modelled.cycles[block.words] for block in profile.blocks))
    classes: Counter[str] = Counter()
    for word, count in executions.items():
        classes[instructions[word].kind] += count
    audited = audit(profile, places, target.core.features)
    peak = target.core.peak_flop_per_cycle.get(PRECISION_OF[audited.ran]) if audited.ran else None
    floor = round(2 * macs / peak) if peak else None
    return Cost(
        instructions=executions.total(),
        classes={kind: classes[kind] for kind in CLASSES if classes[kind]},
        vector_fma=classes[FMA_FP32] + classes[FMA_FP16],
        memory=profile.memory,
        modelled_cycles=total,
        floor_cycles=floor,
        share_of_floor=round(floor / total, 4) if floor and total else None,
        scheduling_model=model,
        audit=audited,
        hottest=hottest(profile.blocks, instructions, modelled, places, HOTTEST),
        unknown=(*UNKNOWN, *_unknown(profile, executions, instructions, modelled, model)),
    )


def _unknown(
    profile: Profile,
    executions: Counter[int],
    instructions: dict[int, Instruction],
    modelled: Modelled,
    model: str,
) -> list[str]:
    """What was not known of this inference in particular."""
    sentences = [cycles.KNOWN_FAULTS[model]] if model in cycles.KNOWN_FAULTS else []
    if profile.threads > 1:
        sentences.append(f"{profile.threads} threads ran; counts repeat to the digit with one only.")
    counts = Counter({instruction.text: executions[word] for word, instruction in instructions.items()})
    if modelled.left_out:
        names = ", ".join(sorted({text.split()[0] for text in modelled.left_out}))
        left_out = sum(counts[text] for text in modelled.left_out)
        sentences.append(f"The model has no timing for {left_out:,} executed instructions, taken as free: {names}.")
    if cleared := sum(count for text, count in counts.items() if text.startswith("dc zva")):
        sentences.append(f"{cleared:,} instructions cleared a cache line each (dc zva); the caches did not see them.")
    return sentences
