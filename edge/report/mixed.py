"""What the page and the terminal both say of the layers that an artifact keeps in float32, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.report.summary import Manifest, decibels, human_bytes, human_seconds, lines, plain


@dataclass(frozen=True)
class KeptLayer:
    """One layer that stays in float32, as text.

    Attributes:
        place: where it is in the network.
        kind: of operator.
        alone: SQNR of the network with it alone in the low precision.
    """

    place: str
    kind: str
    alone: str


@dataclass(frozen=True)
class MixedLine:
    """One artifact of mixed precision, as text. The pairs are one without layers in float32, and the artifact as it is.

    Attributes:
        short: the file's name without the network's.
        kept: how many layers of how many stay in float.
        float_share: of the multiply-adds.
        kinds: of the layers in float, and how many of each.
        sqnr: on the calibration samples, and what was asked for.
        size: of the file.
        time: of one inference on the host; empty where the artifact does not run there itself.
        layers: the noisiest first.
    """

    short: str
    kept: str
    float_share: str
    kinds: str
    sqnr: tuple[str, str, str]
    size: tuple[str, str]
    time: tuple[str, ...]
    layers: tuple[KeptLayer, ...]

    @property
    def sentence(self) -> str:
        """All but the layers."""
        time = f", {self.time[1]} instead of {self.time[0]} on the host" if self.time else ""
        return (
            f"{self.kept} in float32, with {self.float_share} of the multiply-adds: {self.kinds}; on the calibration "
            f"samples {self.sqnr[1]} instead of {self.sqnr[0]}; {self.size[1]} instead of {self.size[0]}{time}"
        )


def mixed_lines(manifest: Manifest) -> list[MixedLine]:
    """The artifacts that keep layers in float32, in the manifest's order."""
    found = {line.short: (line.artifact.get("notes") or {}).get("mixed_precision") for line in lines(manifest)}
    return [_line(short, notes) for short, notes in found.items() if notes and "kept" in notes]


def _line(short: str, notes: Mapping[str, Any]) -> MixedLine:
    kinds = Counter(plain(kept["kind"]) for kept in notes["kept"])
    before, after = notes["bytes"]
    return MixedLine(
        short=short,
        kept=f"{len(notes['kept'])} of {notes['layers']} layers",
        float_share=f"{notes['float_share']:.1%}".replace("%", " %"),
        kinds=", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
        sqnr=(decibels(notes["before_db"]), decibels(notes["after_db"]), decibels(notes["goal_db"])),
        size=(human_bytes(before), human_bytes(after)),
        time=tuple(map(human_seconds, notes["seconds"])),
        layers=tuple(
            KeptLayer(plain(kept["place"] or kept["layer"]), plain(kept["kind"]), decibels(kept["alone_db"]))
            for kept in notes["kept"]
        ),
    )
