"""What mixed precision did and what it cost, as notes of an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.quantisation.search import Choice, Layer, float_share
from edge.quantisation.timing import fastest_seconds
from edge.records import RunJob

KEY = "mixed_precision"


def mixed_precision_notes(choice: Choice, layers: Sequence[Layer], mixed: RunJob, plain: Path | None) -> dict[str, Any]:
    """The notes; none where int8 throughout is good enough.

    Args:
        choice: of the layers that stay in float.
        layers: all that could be in int8.
        mixed: runs the artifact.
        plain: the same network in int8 throughout, for comparison; needed where layers are kept.
    """
    if choice.refused:
        return {KEY: {"goal_db": choice.goal_db, "before_db": choice.before_db, "refused": choice.refused}}
    if not choice.kept or plain is None:
        return {}
    before, after = fastest_seconds([replace(mixed, artifact=plain), mixed])
    return {
        KEY: {
            "goal_db": choice.goal_db,
            "before_db": choice.before_db,
            "after_db": choice.after_db,
            "layers": len(layers),
            "kept": [
                {
                    "layer": kept.layer.name,
                    "kind": kept.layer.kind,
                    "place": kept.layer.place,
                    "alone_db": kept.alone_db,
                }
                for kept in choice.kept
            ],
            "float_share": round(float_share(layers, choice.kept), 4),
            "bytes_before": plain.stat().st_size,
            "bytes_after": mixed.artifact.stat().st_size,
            "seconds_before": round(before, 6),
            "seconds_after": round(after, 6),
        }
    }
