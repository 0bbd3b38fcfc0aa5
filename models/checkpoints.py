"""Reading, checking and writing weights. Nothing a file holds is ever executed, and nothing is loaded in part."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edge.errors import InputError
from edge.models.keys import SameTensorTwice
from edge.models.registry import Entry

CONTAINERS = ("state_dict", "model")
"""Keys under which trainers keep the weights, beside the optimiser's state and the epoch."""

WRAPPERS = ("module.", "model.")
"""What data-parallel training and Lightning put before every key."""

OURS = "edge"

_SHOWN = 5
_SAVE_STATE = "where it was written, save the weights alone: torch.save(network.state_dict(), 'weights.pt')"


@dataclass(frozen=True)
class Applied:
    """How a checkpoint was understood.

    Attributes:
        keys: whose names it used: "edge", or a key map of the network ("authors", "timm").
        dtypes: floating types it stored, sorted; the network holds float32 whatever they are.
    """

    keys: str
    dtypes: tuple[str, ...]


def load(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors: a safetensors file, or a torch file with a state dict or a trainer's container.

    Which of the two it is decides the content, not the name. Containers and prefixes of trainers are taken off.

    Raises:
        InputError: the file is missing, damaged, holds no tensors, or holds objects that only running code would make.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise _unusable(path, what, "give a .safetensors, .pt, .pth or .ckpt file")
    try:
        content = load_file(path) if _is_safetensors(path) else _load_torch(path)
    except Exception as error:  # readers of damaged files raise whatever they meet
        if isinstance(error, pickle.UnpicklingError) and (named := re.search(r"\bGLOBAL ([\w.]+)", str(error))):
            problem = f"holds Python objects besides tensors, which run code when loaded ({named[1]})"
            raise _unusable(path, problem, _SAVE_STATE) from None
        raise _unusable(path, "is damaged or not a checkpoint", "copy or download it again") from error
    return _strip(_unwrap(content, path))


def apply(entry: Entry, network: nn.Module, state: Mapping[str, Tensor], path: Path) -> Applied:
    """Load a checkpoint's tensors into a network, all or nothing.

    Args:
        entry: the network's registration, whose key maps are tried.
        network: built by the entry; changed in place, only if everything fits.
        state: as ``load`` returns it.
        path: where it came from, for the messages.

    Raises:
        InputError: a tensor is missing, left over, of another shape, not floating-point, NaN or infinite, or a
            BatchNorm's variance is not positive.
    """
    keys, mapped = _our_keys(entry, state, path)
    own = network.state_dict()
    # Inference does not use the counters, and some writers leave them out.
    expected = {name: own[name] for name in own if name in mapped or not name.endswith(".num_batches_tracked")}
    _check_keys(entry, network, expected, mapped, path)
    dtypes = {_check_type(entry, name, mapped[name], path) for name in expected if own[name].is_floating_point()}
    ready = {name: tensor.detach().to(expected[name].dtype) for name, tensor in mapped.items()}
    _check_values(entry, network, ready, path)
    network.load_state_dict({**own, **ready})
    return Applied(keys, tuple(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes)))


def save(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors under our keys as safetensors; the same tensors give the same bytes. Never leaves half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256, in hex, over the names, types, shapes and bytes of the tensors, in the order of their names."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        plain = tensor.detach().cpu().contiguous()
        total.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        total.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _is_safetensors(path: Path) -> bool:
    """It begins with the header's length in eight bytes and the header, which is JSON; a torch file never does."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _load_torch(path: Path) -> Any:
    """A training script's arguments are plain data, so that one class is allowed beside torch's own."""
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the pickle protocol
        return torch.load(path, map_location="cpu", weights_only=True)


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping) and (inner := next((key for key in CONTAINERS if key in content), None)):
        content = content[inner]
    if not isinstance(content, Mapping):
        raise _unusable(path, f"holds a {type(content).__name__}, not a dict of tensors", _SAVE_STATE)
    if not content:
        raise _unusable(path, "holds no tensors at all", _SAVE_STATE)
    others = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise _unusable(path, f"holds more than tensors: {_some(others)}", _SAVE_STATE)
    return dict(content)


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while wrapper := next((w for w in WRAPPERS if all(key.startswith(w) for key in state)), None):
        state = {key.removeprefix(wrapper): tensor for key, tensor in state.items()}
    return state


def _our_keys(entry: Entry, state: Mapping[str, Tensor], path: Path) -> tuple[str, dict[str, Tensor]]:
    for writer, key_map in entry.key_maps.items():
        try:
            mapped = key_map(state)
        except SameTensorTwice as twice:
            problem = f"two of its keys name the same tensor, {twice}"
            raise _refused(entry, path, problem, "use the checkpoint as it was published") from None
        if mapped is not None:
            return writer, mapped
    return OURS, dict(state)


def _check_keys(
    entry: Entry, network: nn.Module, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path
) -> None:
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    reshaped = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    if not (missing or extra or reshaped):
        return
    problems = []
    if missing:
        problems.append(f"missing: {_some(f'{n} {_shape(expected[n])}' for n in missing)}")
    if extra:
        problems.append(f"not the network's: {_some(f'{n} {_shape(state[n])}' for n in extra)}")
    if reshaped:
        shapes = (f"{n} is {_shape(state[n])}, the network's {_shape(expected[n])}" for n in reshaped)
        problems.append(f"of another shape: {_some(shapes)}")
    folded = any(n.endswith(".running_var") for n in missing) and any(n.endswith(".bias") for n in extra)
    classifier = next(
        (name for name, module in reversed([*network.named_modules()]) if isinstance(module, nn.Linear)), ""
    )
    if folded:
        step = "its BatchNorms seem to be folded already: give the checkpoint from training, the pipeline folds it"
    elif classifier and not missing and not extra and all(name.startswith(f"{classifier}.") for name in reshaped):
        step = f"it was trained for {state[reshaped[0]].shape[0]} classes: build the network with that many"
    elif len(missing) == len(expected):
        known = ", ".join((OURS, *entry.key_maps))
        step = f"its keys are of no known kind ({known}): is it a checkpoint of {entry.name}?"
    else:
        step = f"give a checkpoint of {entry.name}, with all its tensors and no others"
    raise _refused(entry, path, "; ".join(problems), step)


def _check_type(entry: Entry, name: str, tensor: Tensor, path: Path) -> torch.dtype:
    plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    if not plain or tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        kind = str(tensor.dtype).removeprefix("torch.") if plain else "quantised, sparse or without data"
        raise _refused(entry, path, f"{name} is {kind}", "give the checkpoint in floating point, as trained")
    return tensor.dtype


def _check_values(entry: Entry, network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            problem = f"{name} has {count} of {tensor.numel()} values NaN or infinite"
            raise _refused(entry, path, problem, "training diverged or the file is damaged: give another checkpoint")
    for module_name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            name = f"{module_name}.running_var"
            if not bool((state[name] > 0).all()):
                channel = int((state[name] <= 0).nonzero()[0])
                problem = f"{name} is {state[name][channel].item():g} in channel {channel}, and a variance is positive"
                raise _refused(entry, path, problem, "the file is damaged or the channel dead: give another checkpoint")


def _some(items: Any) -> str:
    listed = list(items)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _shape(tensor: Tensor) -> str:
    return "×".join(str(side) for side in tensor.shape) or "scalar"


def _unusable(path: Path, problem: str, next_step: str) -> InputError:
    return InputError(f"the checkpoint {path} {problem}", stage="define", next_step=next_step)


def _refused(entry: Entry, path: Path, problem: str, next_step: str) -> InputError:
    return InputError(
        f"the checkpoint {path} does not fit: {problem}", stage="define", model=entry.name, next_step=next_step
    )
