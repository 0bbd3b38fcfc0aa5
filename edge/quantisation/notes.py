"""What mixed precision did and what it cost, as notes of an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.fingerprint import size_bytes
from edge.quantisation.search import Choice, Layer, float_share

KEY = "mixed_precision"


def mixed_precision_notes(
    choice: Choice, layers: Sequence[Layer], mixed: Path, plain: Path | None, seconds: Sequence[float] = ()
) -> dict[str, Any]:
    """The notes; none where the low precision throughout is good enough.

    Args:
        choice: of the layers that stay in float.
        layers: all that could be in the low precision.
        mixed: the artifact.
        plain: the same network without layers in float, for comparison; needed where some are kept.
        seconds: of one inference of the plain and of the mixed artifact; none where they do not run on the host.
    """
    if choice.refused:
        return {KEY: {"goal_db": choice.before.goal_db, "before_db": choice.before.sqnr_db, "refused": choice.refused}}
    if not choice.kept or plain is None:
        return {}
    return {
        KEY: {
            "goal_db": choice.after.goal_db,
            "before_db": choice.before.sqnr_db,
            "after_db": choice.after.sqnr_db,
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
            "float_share": round(float_share(layers, [kept.layer for kept in choice.kept]), 4),
            "bytes": [size_bytes(plain), size_bytes(mixed)],
            "seconds": [round(each, 6) for each in seconds],
        }
    }
