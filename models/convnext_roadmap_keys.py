"""Checkpoint keys of the roadmap's first network, ResNet-50, as torchvision and timm write them, renamed to ours.

Of the steps after it nobody published weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.models.keys import Rule, key_map

if TYPE_CHECKING:
    from edge.models.registry import KeyMap

_KIND = {"conv": "conv", "bn": "norm"}
_SHORTCUT = {"0": "conv", "1": "norm"}
_PLACE = {"1": 0, "2": 2, "3": 4}
"""Of a block's convolutions in its branch, with the activations between them."""

_RULES: tuple[Rule, ...] = (
    (r"(conv|bn)1\.(\w+)", lambda m: f"stem.{_KIND[m[1]]}.{m[2]}"),
    (
        r"layer([1-4])\.(\d+)\.(conv|bn)([123])\.(\w+)",
        lambda m: f"stages.{int(m[1]) - 1}.{m[2]}.branch.{_PLACE[m[4]]}.{_KIND[m[3]]}.{m[5]}",
    ),
    (
        r"layer([1-4])\.(\d+)\.downsample\.([01])\.(\w+)",
        lambda m: f"stages.{int(m[1]) - 1}.{m[2]}.shortcut.{_SHORTCUT[m[3]]}.{m[4]}",
    ),
    (r"fc\.(\w+)", lambda m: f"classifier.{m[1]}"),
)

KEY_MAPS: dict[str, KeyMap] = {"torchvision": key_map(_RULES, ("conv1.", "layer1."))}
"""timm's ResNet has the same keys."""
