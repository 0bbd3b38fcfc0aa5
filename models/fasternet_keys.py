"""Checkpoint keys of FasterNet as others write them, renamed to ours.

The authors number stages and mergings in one sequence (stages 0, 2, 4, 6 and mergings 1, 3, 5), call the 1x1
convolution after the pooling ``avgpool_pre_head.1`` and the classifier ``head``; their detection backbones have
``norm0`` … ``norm6`` and no head. timm puts each merging into the stage that follows it, and says ``conv_head`` and
``classifier``. Inside a block both agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from edge.models.registry import KeyMap

Rule = tuple[str, Callable[[re.Match[str]], str]]

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


def _key_map(rules: tuple[Rule, ...], marks: tuple[str, ...]) -> KeyMap:
    """Renames by the first rule that matches a whole key. One without a rule keeps its name: the loader reports it."""

    def rename(key: str) -> str:
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, key):
                return replacement(match)
        return key

    def key_map(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        if not any(key.startswith(marks) for key in state):
            return None
        return {rename(key): tensor for key, tensor in state.items()}

    return key_map


KEY_MAPS: dict[str, KeyMap] = {
    "authors": _key_map(_AUTHORS_RULES, ("avgpool_pre_head.1.", "stages.1.reduction.", "norm0.")),
    "timm": _key_map(_TIMM_RULES, ("conv_head.", "stages.1.downsample.")),
}
"""By who wrote the checkpoint. The marks are keys that only that writer uses."""
