"""The networks by name. A family registers its sizes, a single network its builder; everything else asks for a name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from edge.calibration.preprocessing import Preprocessing
from edge.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import Tensor, nn

Config = TypeVar("Config", bound="DataclassInstance")

KeyMap = Callable[[Mapping[str, "Tensor"]], dict[str, "Tensor"] | None]
"""Renames a state dict from somebody's keys to ours, with our shapes; None when the keys are not of that kind."""


@dataclass(frozen=True)
class Entry:
    """A registered network.

    Attributes:
        name: what the user types.
        build: makes the module, in evaluation mode or not, with fresh weights; takes the family's options.
        outputs: names of the outputs, in order; a classifier's only output is "logits".
        preprocessing: how a photograph becomes the input; also fixes the input's size.
        key_maps: by the name of who wrote the checkpoint.
        source: paper and table.
    """

    name: str
    build: Callable[..., nn.Module]
    outputs: tuple[str, ...]
    preprocessing: Preprocessing
    key_maps: Mapping[str, KeyMap]
    source: str

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Batch 1, NCHW."""
        return (1, 3, self.preprocessing.size, self.preprocessing.size)


FAMILIES = ("fasternet", "shiftwise", "efficientformerv2", "convnext", "convnext_roadmap")
"""Modules of this package that register networks when imported."""

_ENTRIES: dict[str, Entry] = {}


def register(
    *,
    outputs: tuple[str, ...] = ("logits",),
    preprocessing: Preprocessing,
    key_maps: Mapping[str, KeyMap],
    source: str,
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register the decorated builder under its own name.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        name = build.__name__
        if name in _ENTRIES:
            raise ValueError(f"a network named {name!r} is registered already, by {_ENTRIES[name].build.__module__}")
        _ENTRIES[name] = Entry(name, build, outputs, preprocessing, key_maps, source)
        return build

    return decorate


def register_variant(
    name: str,
    network: Callable[[Config], nn.Module],
    config: Config,
    *,
    outputs: tuple[str, ...] = ("logits",),
    preprocessing: Preprocessing,
    key_maps: Mapping[str, KeyMap],
    source: str,
) -> None:
    """Register one size of a family; its options are the fields of the family's configuration.

    Args:
        name: of the network.
        network: makes it from a configuration.
        config: what the name stands for; a frozen dataclass.
        outputs: names of the outputs, in order.
        preprocessing: how a photograph becomes the input.
        key_maps: by the name of who wrote the checkpoint.
        source: paper and table.

    Raises:
        ValueError: the name is taken.
    """

    def build(**options: Any) -> nn.Module:
        return network(replace(config, **options))

    build.__name__ = build.__qualname__ = name
    build.__module__ = type(config).__module__
    build.__doc__ = f"{name}; options are the fields of ``{type(config).__qualname__}``."
    register(outputs=outputs, preprocessing=preprocessing, key_maps=key_maps, source=source)(build)


def _load_families() -> None:
    for family in FAMILIES:
        importlib.import_module(f"edge.models.{family}")


def entries() -> tuple[Entry, ...]:
    """Every registered network, in the order of registration."""
    _load_families()
    return tuple(_ENTRIES.values())


def find(name: str) -> Entry:
    """The network of that name.

    Raises:
        UsageError: there is none; the message has the nearest names.
    """
    _load_families()
    if name not in _ENTRIES:
        near = difflib.get_close_matches(name, _ENTRIES, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`edge models` lists them"
        raise UsageError(f"there is no network named {name!r}", stage="define", model=name, next_step=hint)
    return _ENTRIES[name]


def create(name: str, **options: Any) -> nn.Module:
    """Build the network of that name with the family's options, fresh weights, in evaluation mode."""
    return find(name).build(**options).eval()
