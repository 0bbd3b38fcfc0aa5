"""Checkpoint keys of EfficientFormerV2 as others write them, renamed to ours.

The authors number stages and what lies between them in one sequence, ``network.0`` to ``network.6``, keep convolutions
and norms as numbered parts of a sequence, and store the table of offsets, which we compute. timm has stages with the
way into them as ``downsample``, and pairs of ``conv`` and ``bn``. Only the authors keep layer scales as (C, 1, 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge.models.keys import Rule, key_map

if TYPE_CHECKING:
    from torch import Tensor

    from edge.models.registry import KeyMap

_MIXER = {
    "stride_conv": "reduce",
    "q": "query",
    "q.proj": "query",
    "k": "key",
    "v": "value",
    "v_local": "local",
    "proj": "project",
    "talking_head1": "talk_before",
    "talking_head2": "talk_after",
    "fc1": "expand",
    "mid": "mix",
    "fc2": "project",
}
"""Layers inside attention and the feed-forward network."""

_SCALED = {"token_mixer": "attention", "mlp": "feed_forward", "1": "attention", "2": "feed_forward"}
"""Branches by their own name or by the number of their layer scale."""

_PAIRS = {"0": "conv", "1": "norm", "2": "norm", "conv": "conv", "bn": "norm"}
"""Parts of a convolution with its norm. In the authors' ``proj`` they are 1 and 2, behind the activation."""

_NORMS = {"norm1": "fc1", "mid_norm": "mid", "norm2": "fc2"}
"""Whose norm each is, in the authors' feed-forward network."""


def _layer(name: str, part: str, parameter: str) -> str:
    kind = "conv" if name == "proj" and part == "1" else _PAIRS[part]
    return f"{_MIXER[name]}.{kind}.{parameter}"


def _block(stage: int, block: str, branch: str) -> str:
    return f"stages.{stage}.{block}.{_SCALED[branch]}"


def _authors_feed_forward(match: re.Match[str]) -> str:
    block = _block(int(match[1]) // 2, match[2], "mlp")
    layer, kind = (_NORMS[match[3]], "norm") if match[3] in _NORMS else (match[3], "conv")
    return f"{block}.branch.{_MIXER[layer]}.{kind}.{match[4]}"


_SHARED_RULES: tuple[Rule, ...] = (
    (r"norm\.(\w+)", lambda m: f"norm.{m[1]}"),
    (r"head\.(\w+)", lambda m: f"classifier.{m[1]}"),
)

_AUTHORS_RULES: tuple[Rule, ...] = (
    *_SHARED_RULES,
    (r".*\.attention_bias_idxs", lambda m: None),
    (r"patch_embed\.([03])\.(\w+)", lambda m: f"stem.{0 if m[1] == '0' else 2}.conv.{m[2]}"),
    (r"patch_embed\.([14])\.(\w+)", lambda m: f"stem.{0 if m[1] == '1' else 2}.norm.{m[2]}"),
    (r"network\.([0246])\.(\d+)\.mlp\.(\w+)\.(\w+)", _authors_feed_forward),
    (
        r"network\.([0246])\.(\d+)\.layer_scale_([12])",
        lambda m: f"{_block(int(m[1]) // 2, m[2], m[3])}.layer_scale",
    ),
    (
        r"network\.([46])\.(\d+)\.token_mixer\.attention_biases",
        lambda m: f"{_block(int(m[1]) // 2, m[2], 'token_mixer')}.branch.bias.values",
    ),
    (
        r"network\.([46])\.(\d+)\.token_mixer\.(talking_head[12])\.(\w+)",
        lambda m: f"{_block(int(m[1]) // 2, m[2], 'token_mixer')}.branch.{_MIXER[m[3]]}.{m[4]}",
    ),
    (
        r"network\.([46])\.(\d+)\.token_mixer\.(\w+)\.([012])\.(\w+)",
        lambda m: f"{_block(int(m[1]) // 2, m[2], 'token_mixer')}.branch.{_layer(m[3], m[4], m[5])}",
    ),
    (r"network\.([13])\.proj\.(\w+)", lambda m: f"downsamples.{int(m[1]) // 2}.conv.{m[2]}"),
    (r"network\.([13])\.norm\.(\w+)", lambda m: f"downsamples.{int(m[1]) // 2}.norm.{m[2]}"),
    (r"network\.5\.conv\.(\w+)", lambda m: f"downsamples.2.direct.conv.{m[1]}"),
    (r"network\.5\.bn\.(\w+)", lambda m: f"downsamples.2.direct.norm.{m[1]}"),
    (r"network\.5\.attn\.attention_biases", lambda m: "downsamples.2.attention.bias.values"),
    (r"network\.5\.attn\.q\.local\.0\.(\w+)", lambda m: f"downsamples.2.attention.query_local.{m[1]}"),
    (
        r"network\.5\.attn\.(q\.proj|k|v|v_local|proj)\.([012])\.(\w+)",
        lambda m: f"downsamples.2.attention.{_layer(m[1], m[2], m[3])}",
    ),
    (r"dist_head\.(\w+)", lambda m: f"distillation_classifier.{m[1]}"),
)

_TIMM_RULES: tuple[Rule, ...] = (
    *_SHARED_RULES,
    (r"stem\.conv([12])\.(conv|bn)\.(\w+)", lambda m: f"stem.{2 * int(m[1]) - 2}.{_PAIRS[m[2]]}.{m[3]}"),
    (
        r"stages\.(\d)\.blocks\.(\d+)\.ls([12])\.gamma",
        lambda m: f"{_block(int(m[1]), m[2], m[3])}.layer_scale",
    ),
    (
        r"stages\.(\d)\.blocks\.(\d+)\.token_mixer\.attention_biases",
        lambda m: f"{_block(int(m[1]), m[2], 'token_mixer')}.branch.bias.values",
    ),
    (
        r"stages\.(\d)\.blocks\.(\d+)\.token_mixer\.(talking_head[12])\.(\w+)",
        lambda m: f"{_block(int(m[1]), m[2], 'token_mixer')}.branch.{_MIXER[m[3]]}.{m[4]}",
    ),
    (
        r"stages\.(\d)\.blocks\.(\d+)\.(mlp|token_mixer)\.(\w+)\.(conv|bn)\.(\w+)",
        lambda m: f"{_block(int(m[1]), m[2], m[3])}.branch.{_layer(m[4], m[5], m[6])}",
    ),
    (
        r"stages\.([12])\.downsample\.conv\.(conv|bn)\.(\w+)",
        lambda m: f"downsamples.{int(m[1]) - 1}.{_PAIRS[m[2]]}.{m[3]}",
    ),
    (
        r"stages\.3\.downsample\.conv\.(conv|bn)\.(\w+)",
        lambda m: f"downsamples.2.direct.{_PAIRS[m[1]]}.{m[2]}",
    ),
    (r"stages\.3\.downsample\.attn\.attention_biases", lambda m: "downsamples.2.attention.bias.values"),
    (r"stages\.3\.downsample\.attn\.q\.local\.(\w+)", lambda m: f"downsamples.2.attention.query_local.{m[1]}"),
    (
        r"stages\.3\.downsample\.attn\.(q\.proj|k|v|v_local|proj)\.(conv|bn)\.(\w+)",
        lambda m: f"downsamples.2.attention.{_layer(m[1], m[2], m[3])}",
    ),
    (r"head_dist\.(\w+)", lambda m: f"distillation_classifier.{m[1]}"),
)


def _flat_layer_scales(renamed: KeyMap) -> KeyMap:
    def flattened(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        ours = renamed(state)
        return ours and {name: t.flatten() if name.endswith(".layer_scale") else t for name, t in ours.items()}

    return flattened


KEY_MAPS: dict[str, KeyMap] = {
    "authors": _flat_layer_scales(key_map(_AUTHORS_RULES, ("patch_embed.", "network."))),
    "timm": key_map(_TIMM_RULES, ("stem.conv1.", "head_dist.", "stages.1.downsample.")),
}
"""By who wrote the checkpoint. The marks are keys that only that writer uses."""
