"""Checkpoint keys of the shift-wise networks as their authors write them, renamed to ours.

The stem is their ``downsample_layers.0``. In a block, the operator is ``large_kernel`` with the paths ``LoRAs``; after
their own merging there is one path, ``LoRA``. It loads as the first path with nothing in the second: the same function.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge.models.keys import Rule, key_map

if TYPE_CHECKING:
    from torch import Tensor

    from edge.models.registry import KeyMap

_IN_BLOCK = {
    "gamma": "layer_scale",
    "large_kernel.bn_lora1": "shiftwise.norm_across",
    "large_kernel.bn_lora2": "shiftwise.norm_down",
    "large_kernel.bn_small": "shiftwise.norm_middle",
    "norm": "norm",
    "se": "excitation",
    "pwconv1.1": "expand",
    "act.1.gamma": "response_norm.scale",
    "act.1.beta": "response_norm.shift",
    "pwconv2.0": "project",
    "pwconv2.2": "project_norm",
}
_BLOCK = r"stages\.(\d)\.(\d+)\."
_NAMES = "|".join(re.escape(name) for name in _IN_BLOCK)

_RULES: tuple[Rule, ...] = (
    (r"downsample_layers\.0\.(\d)\.(\w+)", lambda m: f"embedding.{m[1]}.{m[2]}"),
    (r"downsample_layers\.([123])\.(\d)\.(\w+)", lambda m: f"mergings.{int(m[1]) - 1}.{m[2]}.{m[3]}"),
    (rf"{_BLOCK}large_kernel\.LoRAs\.(\d)\.weight", lambda m: f"stages.{m[1]}.{m[2]}.shiftwise.paths.{m[3]}.weight"),
    (rf"{_BLOCK}large_kernel\.LoRA\.weight", lambda m: f"stages.{m[1]}.{m[2]}.shiftwise.paths.0.weight"),
    (rf"{_BLOCK}({_NAMES})((?:\..+)?)", lambda m: f"stages.{m[1]}.{m[2]}.{_IN_BLOCK[m[3]]}{m[4]}"),
    (r"head\.(\w+)", lambda m: f"classifier.{m[1]}"),
)
_PATH = ".shiftwise.paths.0.weight"

_renamed = key_map(_RULES, ("downsample_layers.0.4.",))


def _flat(tensor: Tensor, name: str) -> Tensor:
    """Scale and shift of the response normalisation are (1, 1, 1, 4C) there and (4C,) here."""
    return tensor.flatten() if ".response_norm." in name else tensor


def _authors(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    mapped = _renamed(state)
    if mapped is None:
        return None
    mapped = {name: _flat(tensor, name) for name, tensor in mapped.items()}
    if any(".LoRA." in key for key in state):
        first = {name: tensor for name, tensor in mapped.items() if name.endswith(_PATH)}
        mapped |= {
            name.replace(".paths.0.", ".paths.1."): tensor.new_zeros(tensor.shape) for name, tensor in first.items()
        }
    return mapped


KEY_MAPS: dict[str, KeyMap] = {"authors": _authors}
"""By who wrote the checkpoint."""
