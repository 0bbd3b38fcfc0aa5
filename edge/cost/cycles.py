"""Modelled cycles: each block in LLVM's model of the core's pipeline (llvm-mca), repeated until it is steady.

Every load finds its data in the first cache, every branch is foreseen, and a block follows itself. What the core loses
otherwise is not in the model, and no penalty is made up for it. The figure is a count in a model, never a time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.cost.instructions import TRIPLE, Instruction, clean
from edge.errors import SetupError
from edge.toolchains import arm64

FILLED, ENOUGH = 20, 80
"""Iterations after which the pipeline is full, and those that the cycles between are counted to."""

Words = tuple[int, ...]

KNOWN_FAULTS = {
    "cortex-a53": "LLVM's model of the Cortex-A53 holds an instruction back until the slow ones before it are nearly "
    "done, where the core goes on (LLVM pull request 213238): cycles of code that mixes multiply-adds with loads come "
    "out several times too high.",
    "cortex-a72": "LLVM models the Cortex-A72 as a Cortex-A57.",
    "neoverse-n1": "LLVM's model is the Neoverse N1's, the server core made from the Cortex-A76.",
}
"""What is known to be wrong with LLVM's models, by their names."""


@dataclass(frozen=True)
class Modelled:
    """Cycles of blocks.

    Attributes:
        cycles: of one execution of each block, in steady state.
        left_out: texts of the instructions the model has no timing for; they count as no cycles.
    """

    cycles: Mapping[Words, float]
    left_out: frozenset[str]


def model(
    blocks: Iterable[Words],
    instructions: Mapping[int, Instruction],
    scheduling_model: str,
    iterations: tuple[int, int] = (FILLED, ENOUGH),
) -> Modelled:
    """Model the blocks.

    Args:
        blocks: their words; the same block twice is modelled once.
        instructions: has every word of them.
        scheduling_model: LLVM's name of the core whose pipeline model is used.
        iterations: of a block, between which its cycles are counted.

    Raises:
        SetupError: LLVM has no such model, or failed.
    """
    unique = list(dict.fromkeys(blocks))
    texts = [[instructions[word].text for word in block] for block in unique]
    regions = (
        f"# LLVM-MCA-BEGIN {index}\n" + "\n".join(lines) + "\n# LLVM-MCA-END\n" for index, lines in enumerate(texts)
    )
    source = "".join(regions)
    filled, enough = (_analyse(source, scheduling_model, count) for count in iterations)
    cycles: dict[Words, float] = {}
    left_out: set[str] = set()
    for index, block in enumerate(unique):
        name = str(index)
        before, after = filled.get(name), enough.get(name)  # a block of which nothing is modelled is missing
        timed = Counter(clean(line) for line in after["Instructions"]) if after else Counter()
        left_out |= (Counter(texts[index]) - timed).keys()
        elapsed = after["SummaryView"]["TotalCycles"] - before["SummaryView"]["TotalCycles"] if before and after else 0
        cycles[block] = elapsed / (iterations[1] - iterations[0])
    return Modelled(cycles, frozenset(left_out))


def _analyse(source: str, scheduling_model: str, iterations: int) -> dict[str, dict[str, Any]]:
    """What llvm-mca says of each region, by its name."""
    result = arm64.program("llvm-mca-19").run(
        f"-mtriple={TRIPLE}",
        f"-mcpu={scheduling_model}",
        "-mattr=+all",  # what the core lacks is the audit's matter
        f"-iterations={iterations}",
        "-call-latency=1",  # a foreseen call; the default is a hundred cycles for what is called
        "-skip-unsupported-instructions=any",
        "-json",
        "-instruction-info=0",
        "-resource-pressure=0",
        input=source,
    )
    if result.returncode or "is not a recognized processor" in result.stderr:
        raise SetupError(
            f"llvm-mca failed: {result.stderr.strip()[-300:]}",
            stage="cost",
            next_step="name a core that LLVM knows as scheduling_model in the target's [emulated]",
        )
    return {region["Name"]: region for region in json.loads(result.stdout)["CodeRegions"]}
