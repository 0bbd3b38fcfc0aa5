"""Checkpoint keys of FasterNet as others write them, renamed to ours.

The authors number stages and mergings in one sequence (stages 0, 2, 4, 6 and mergings 1, 3, 5), call the 1x1
convolution after the pooling ``avgpool_pre_head.1`` and the classifier ``head``; their detection backbones have
``norm0`` … ``norm6`` and no head. timm puts each merging into the stage that follows it, and says ``conv_head`` and
``classifier``. Inside a block both agree.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edge.models.keys import Rule, key_map

if TYPE_CHECKING:
    from edge.models.registry import KeyMap

_IN_BLOCK = {
    "mlp.0": "expand",
    "mlp.1": "norm",
    "mlp.3": "project",
    "spatial_mixing.partial_conv3": "partial.conv",
    "layer_scale": "layer_scale",
}
_BLOCK = "|".join(re.escape(name) for name in _IN_BLOCK)
_MERGING = {"reduction": "conv", "norm": "norm"}

_EMBEDDING_RULES: tuple[Rule, ...] = (
    (r"patch_embed\.proj\.(\w+)", lambda m: f"embedding.conv.{m[1]}"),
    (r"patch_embed\.norm\.(\w+)", lambda m: f"embedding.norm.{m[1]}"),
)

_AUTHORS_RULES: tuple[Rule, ...] = (
    *_EMBEDDING_RULES,
    (rf"stages\.([0246])\.blocks\.(\d+)\.({_BLOCK})(.*)", lambda m: _in_block(int(m[1]) // 2, m)),
    (r"stages\.([135])\.(reduction|norm)\.(\w+)", lambda m: _in_merging((int(m[1]) - 1) // 2, m)),
    (r"avgpool_pre_head\.1\.weight", lambda m: "head.weight"),
    (r"head\.(\w+)", lambda m: f"classifier.{m[1]}"),
    (r"norm([0246])\.(\w+)", lambda m: f"norms.{int(m[1]) // 2}.{m[2]}"),
)

_TIMM_RULES: tuple[Rule, ...] = (
    *_EMBEDDING_RULES,
    (rf"stages\.(\d)\.blocks\.(\d+)\.({_BLOCK})(.*)", lambda m: _in_block(int(m[1]), m)),
    (r"stages\.([123])\.downsample\.(reduction|norm)\.(\w+)", lambda m: _in_merging(int(m[1]) - 1, m)),
    (r"conv_head\.weight", lambda m: "head.weight"),
    (r"classifier\.(\w+)", lambda m: f"classifier.{m[1]}"),
)


def _in_block(stage: int, match: re.Match[str]) -> str:
    return f"stages.{stage}.{match[2]}.{_IN_BLOCK[match[3]]}{match[4]}"


def _in_merging(merging: int, match: re.Match[str]) -> str:
    return f"mergings.{merging}.{_MERGING[match[2]]}.{match[3]}"


KEY_MAPS: dict[str, KeyMap] = {
    "authors": key_map(_AUTHORS_RULES, ("avgpool_pre_head.1.", "stages.1.reduction.", "norm0.")),
    "timm": key_map(_TIMM_RULES, ("conv_head.", "stages.1.downsample.")),
}
"""By who wrote the checkpoint. The marks are keys that only that writer uses."""
