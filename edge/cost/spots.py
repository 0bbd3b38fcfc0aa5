"""Hot spots: the straight pieces of code that an inference spends its modelled cycles in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edge.cost.counter import Block
from edge.cost.cycles import Modelled
from edge.cost.instructions import BRANCH, Instruction
from edge.cost.places import Place, Places

LINES = 6


@dataclass(frozen=True)
class Spot:
    """A piece of code without branches, up to the branch that ends it; a tight loop is one spot.

    Attributes:
        place: of its first instruction.
        executions: of its most executed instruction.
        instructions: executed in it.
        modelled_cycles: spent in it.
        share: of all modelled cycles.
        listing: how it begins in its most executed form, as assembly.
    """

    place: Place
    executions: int
    instructions: int
    modelled_cycles: int
    share: float
    listing: tuple[str, ...]


def hottest(
    blocks: tuple[Block, ...],
    instructions: Mapping[int, Instruction],
    modelled: Modelled,
    places: Places,
    count: int,
) -> tuple[Spot, ...]:
    """The spots with the most modelled cycles, the hottest first.

    Args:
        blocks: in order of address.
        instructions: has all their words.
        modelled: has all of them.
        places: of the run they were counted in.
        count: how many spots.
    """
    total = sum(block.executions * modelled.cycles[block.words] for block in blocks)

    def cycles(blocks: list[Block]) -> float:
        return sum(block.executions * modelled.cycles[block.words] for block in blocks)

    pieces = sorted(_pieces(blocks, instructions), key=lambda piece: (-cycles(piece), piece[0].address))
    return tuple(_spot(piece, cycles(piece), total, instructions, places) for piece in pieces[:count])


def _pieces(blocks: tuple[Block, ...], instructions: Mapping[int, Instruction]) -> list[list[Block]]:
    """Blocks that share instructions, or flow into one another without a branch, together."""
    pieces: list[list[Block]] = []
    end, open_ended = -1, False
    for block in blocks:
        if not pieces or block.address > end or (block.address == end and not open_ended):
            pieces.append([])
            end = -1
        pieces[-1].append(block)
        if block.address + 4 * len(block.words) >= end:
            end = block.address + 4 * len(block.words)
            open_ended = instructions[block.words[-1]].kind != BRANCH
    return pieces


def _spot(
    blocks: list[Block], cycles: float, total: float, instructions: Mapping[int, Instruction], places: Places
) -> Spot:
    executions: Counter[int] = Counter()
    for block in blocks:
        for index in range(len(block.words)):
            executions[block.address + 4 * index] += block.executions
    main = max(blocks, key=lambda block: block.executions * len(block.words))
    listing = [instructions[word].text for word in main.words[:LINES]]
    if len(main.words) > LINES:
        listing.append(f"… {len(main.words) - LINES} more")
    return Spot(
        place=places.find(main.address),
        executions=max(executions.values()),
        instructions=executions.total(),
        modelled_cycles=round(cycles),
        share=round(cycles / total, 4) if total else 0.0,
        listing=tuple(listing),
    )
