"""Checkpoint keys of ConvNeXt as others write them, renamed to ours.

The authors count the embedding as the first of four ``downsample_layers``, in each of which 0 and 1 are the layers in
the order they run: convolution and norm in the embedding, norm and convolution in a merging. timm has a ``stem`` and
puts each merging into the stage that follows it. The isotropic networks have ``stem`` and ``blocks``. Where we have a
linear layer, a checkpoint may hold a 1x1 convolution.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edge.models.keys import Rule, key_map

if TYPE_CHECKING:
    from torch import Tensor

    from edge.models.registry import KeyMap

_AUTHORS_BLOCK = {
    "gamma": "layer_scale",
    "dwconv": "depthwise",
    "norm": "norm",
    "pwconv1": "expand",
    "pwconv2": "project",
}
_TIMM_BLOCK = {
    "gamma": "layer_scale",
    "conv_dw": "depthwise",
    "norm": "norm",
    "mlp.fc1": "expand",
    "mlp.fc2": "project",
}
_EMBEDDING = {"0": "embedding", "1": "norm"}
_MERGING = {"0": "norm", "1": "conv"}


def _in_block(blocks: str, names: Mapping[str, str], ours: Callable[[re.Match[str]], str]) -> Rule:
    """The layers of a block, whose path is the pattern ``blocks`` here and ``ours`` with us."""
    layers = "|".join(re.escape(name) for name in names)
    return rf"{blocks}\.(?P<layer>{layers})(?P<leaf>(\.\w+)?)", lambda m: f"{ours(m)}.{names[m['layer']]}{m['leaf']}"


def _in_merging(match: re.Match[str]) -> str:
    return f"mergings.{int(match[1]) - 1}.{_MERGING[match[2]]}.{match[3]}"


_AUTHORS_HEAD_RULES: tuple[Rule, ...] = (
    (r"norm\.(\w+)", lambda m: f"head.norm.{m[1]}"),
    (r"head\.(\w+)", lambda m: f"head.classifier.{m[1]}"),
)

_AUTHORS_RULES: tuple[Rule, ...] = (
    (r"downsample_layers\.0\.([01])\.(\w+)", lambda m: f"{_EMBEDDING[m[1]]}.{m[2]}"),
    (r"downsample_layers\.([123])\.([01])\.(\w+)", _in_merging),
    _in_block(r"stages\.(\d)\.(\d+)", _AUTHORS_BLOCK, lambda m: f"stages.{m[1]}.{m[2]}"),
    *_AUTHORS_HEAD_RULES,
)

_TIMM_RULES: tuple[Rule, ...] = (
    (r"stem\.([01])\.(\w+)", lambda m: f"{_EMBEDDING[m[1]]}.{m[2]}"),
    (r"stages\.([123])\.downsample\.([01])\.(\w+)", _in_merging),
    _in_block(r"stages\.(\d)\.blocks\.(\d+)", _TIMM_BLOCK, lambda m: f"stages.{m[1]}.{m[2]}"),
    (r"head\.norm\.(\w+)", lambda m: f"head.norm.{m[1]}"),
    (r"head\.fc\.(\w+)", lambda m: f"head.classifier.{m[1]}"),
)

_ISOTROPIC_RULES: tuple[Rule, ...] = (
    (r"stem\.(\w+)", lambda m: f"embedding.{m[1]}"),
    _in_block(r"blocks\.(\d+)", _AUTHORS_BLOCK, lambda m: f"blocks.{m[1]}"),
    *_AUTHORS_HEAD_RULES,
)


def _linear(renamed: KeyMap) -> KeyMap:
    """The same map, after which a 1x1 convolution's weight (O, I, 1, 1) is a linear layer's (O, I)."""

    def reshaped(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        ours = renamed(state)
        return ours and {
            key: value.flatten(1) if key.endswith((".expand.weight", ".project.weight")) else value
            for key, value in ours.items()
        }

    return reshaped


KEY_MAPS: dict[str, KeyMap] = {
    "authors": _linear(key_map(_AUTHORS_RULES, ("downsample_layers.",))),
    "timm": _linear(key_map(_TIMM_RULES, ("stem.", "head.fc.", "stages.1.downsample."))),
}
"""By who wrote the checkpoint. The marks are keys that only that writer uses."""

ISOTROPIC_KEY_MAPS: dict[str, KeyMap] = {"authors": _linear(key_map(_ISOTROPIC_RULES, ("stem.",)))}
"""Of the isotropic networks, which timm does not have with these layers."""
