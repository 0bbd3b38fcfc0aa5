"""What the page and the terminal both say of an artifact's cost on the target's core, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.report.summary import ABSENT, Manifest, human_bytes, plain


def millions(count: float | None) -> str:
    """Millions with one decimal: 130.9 M; absent where it was not counted."""
    return ABSENT if count is None else f"{count / 1e6:,.1f} M"


def share(part: float | None) -> str:
    """One decimal: 83.2 %."""
    return ABSENT if part is None else f"{part:.1%}".replace("%", " %")


@dataclass(frozen=True)
class Spot:
    """One of the hottest pieces of code, as text."""

    share: str
    cycles: str
    executions: str
    where: str
    operator: str
    listing: str


@dataclass(frozen=True)
class CostLine:
    """One artifact's cost, as text."""

    short: str
    ran: str
    runtime: str
    instructions: str
    vector_fma: str
    cycles: str
    share: str
    floor: str
    loaded: str
    stored: str
    l1d_misses: str
    l2_misses: str
    classes: dict[str, str]
    spots: tuple[Spot, ...]


def lines(manifest: Manifest) -> list[CostLine]:
    """The artifacts whose cost was counted, in the manifest's order."""
    return [_line(entry, manifest["model"]) for entry in manifest["artifacts"] if entry.get("cost")]


def notes(manifest: Manifest) -> list[str]:
    """What the figures do not know, each sentence once, and whose pipeline was modelled."""
    counted = [entry["cost"] for entry in manifest["artifacts"] if entry.get("cost")]
    models = dict.fromkeys(cost["scheduling_model"] for cost in counted)
    sentences = dict.fromkeys(sentence for cost in counted for sentence in cost["unknown"])
    return [f"The pipeline is LLVM’s model of {', '.join(models)}.", *map(plain, sentences)] if counted else []


def _line(entry: Mapping[str, Any], model: str) -> CostLine:
    cost = entry["cost"]
    memory = cost["memory"] or {}
    return CostLine(
        short=plain(entry["file"]).removeprefix(f"{model}."),
        ran=cost["ran"] or ABSENT,
        runtime=plain(cost["runtime"]),
        instructions=millions(cost["instructions"]),
        vector_fma=millions(cost["vector_fma"]),
        cycles=millions(cost["modelled_cycles"]),
        share=share(cost["share_of_floor"]),
        floor=millions(cost["floor_cycles"]),
        loaded=human_bytes(memory["loaded_bytes"]) if memory else ABSENT,
        stored=human_bytes(memory["stored_bytes"]) if memory else ABSENT,
        l1d_misses=millions(memory.get("l1d_misses")),
        l2_misses=millions(memory.get("l2_misses")),
        classes={name: millions(number) for name, number in cost["classes"].items()},
        spots=tuple(_spot(spot) for spot in cost["hottest"]),
    )


def _spot(spot: Mapping[str, Any]) -> Spot:
    place = spot["place"]
    where = f"{place['function'] or hex(place['offset'])} in {place['library'] or 'no library'}"
    return Spot(
        share=share(spot["share"]),
        cycles=millions(spot["modelled_cycles"]),
        executions=f"{spot['executions']:,}",
        where=plain(where),
        operator=plain(place["operator"]),
        listing="\n".join(map(plain, spot["listing"])),
    )
