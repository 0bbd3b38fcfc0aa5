"""Define: from a name, a checkpoint and photographs to a network in float32, its samples and its oracle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from edge.calibration.photographs import CalibrationSet, calibration_set, check_samples
from edge.calibration.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edge.errors import InputError
from edge.models import checkpoints, counts, find
from edge.models.seeded import estimate_batch_norm, seed_weights
from edge.parity.oracle import Oracle, consult
from edge.parity.vectors import Vectors
from edge.request import Request

SEED = 0


Definition = nn.Module | ExportedProgram
"""A network with its weights, in float32: a module, or the user's own program."""


@dataclass(frozen=True)
class Facts:
    """What the network is, in numbers."""

    params: int
    macs: int
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Weights:
    """Where the weights come from.

    Attributes:
        trained: whether a checkpoint was loaded; without one, accuracy cannot be assessed.
    """

    source: str
    digest: str
    trained: bool


@dataclass(frozen=True)
class Network:
    """What is known of the network as defined, and everything later stages compare with.

    Attributes:
        inputs: names of its inputs.
        check: (N, 3, H, W) float32, what every artifact is checked with; photographs first.
    """

    inputs: tuple[str, ...]
    facts: Facts
    weights: Weights
    calibration: CalibrationSet
    check: np.ndarray
    oracle: Oracle

    @property
    def vectors(self) -> Vectors:
        """What every artifact is checked with, and what it must give."""
        return Vectors({self.inputs[0]: self.check}, self.oracle.outputs, self.oracle.eager)


def _registered(request: Request) -> tuple[Definition, Network]:
    entry = find(request.model)
    network = entry.build()
    calibration = calibration_set(entry.preprocessing, request.calibration)
    if request.checkpoint:
        applied = checkpoints.apply(entry, network, checkpoints.load(request.checkpoint), request.checkpoint)
        source = f"{request.checkpoint.name} ({applied.keys} keys, stored as {', '.join(applied.dtypes)})"
    else:
        seed_weights(network, SEED)
        estimate_batch_norm(network, calibration.samples)
        source = f"seed {SEED}, BN statistics from the calibration images"
    network.eval()
    weights = Weights(source, checkpoints.digest(network.state_dict()), request.checkpoint is not None)
    shape = entry.input_shape
    facts = Facts(
        counts.parameters(network),
        counts.macs(network, shape),
        shape,
        entry.outputs,
        entry.source,
    )
    check = check_samples(entry.preprocessing)
    oracle = consult(network, check, entry.outputs)
    return network, Network(("image",), facts, weights, calibration, check, oracle)


def _load_program(path: Path) -> ExportedProgram:
    def unusable(reason: str) -> InputError:
        return InputError(
            reason,
            stage="define",
            model=path.stem,
            next_step="save it with torch.export.save(torch.export.export(network.eval(), (image,)), 'network.pt2'), "
            "where image is one float32 tensor (1, 3, size, size)",
        )

    if not path.is_file():
        raise unusable(f"there is no file {path}")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise unusable(f"{path} is not a saved ExportedProgram: {str(error).splitlines()[0][:200]}") from None
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    shapes = [tuple(node.meta["val"].shape) for node in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][:2] != (1, 3) or shapes[0][2] != shapes[0][3]:
        raise unusable(f"{path} takes inputs of shape {shapes}, expected one image (1, 3, size, size)")
    if inputs[0].meta["val"].dtype != torch.float32:
        raise unusable(f"{path} takes {inputs[0].meta['val'].dtype}, expected float32")
    return program


def _own_program(request: Request) -> tuple[Definition, Network]:
    path = Path(request.model)
    if request.checkpoint:
        raise InputError(
            f"{path} carries its own weights",
            stage="define",
            model=request.name,
            next_step="leave CHECKPOINT out, or load the checkpoint before you export the program",
        )
    program = _load_program(path)
    (name,) = program.graph_signature.user_inputs
    shape = tuple(next(node for node in program.graph.nodes if node.name == name).meta["val"].shape)
    preprocessing = Preprocessing(shape[-1], 0.9, IMAGENET_MEAN, IMAGENET_STD)
    module = program.module(check_guards=False)
    results = len(program.graph_signature.user_outputs)
    first = next(iter(program.graph_signature.user_outputs))
    classifies = results == 1 and next(n for n in program.graph.nodes if n.name == first).meta["val"].ndim == 2
    outputs = ("logits",) if classifies else tuple(f"output_{index}" for index in range(results))
    check = check_samples(preprocessing)
    params = sum(tensor.numel() for tensor in program.parameters())
    facts = Facts(params, counts.macs(module, shape), shape, outputs, str(path.name))
    weights = Weights(f"inside {path.name}", checkpoints.digest(dict(program.state_dict)), True)
    calibration = calibration_set(preprocessing, request.calibration)
    return program, Network((str(name),), facts, weights, calibration, check, consult(module, check, outputs))


def define(request: Request) -> tuple[Definition, Network]:
    """Build the network that the request names, give it its weights, and ask the oracle.

    The definition is apart from what is known of it, so that a large one need not be held once it is lowered.

    Raises:
        UsageError: an unknown name.
        InputError: a checkpoint, a program or a calibration folder that cannot be used.
    """
    return _own_program(request) if request.is_program else _registered(request)


def proof_samples(network: Network) -> torch.Tensor:
    """What the rewrites are proven on: a photograph and an image of random pixels, (2, 3, H, W)."""
    return torch.from_numpy(network.check[[0, -1]])


def save_calibration(network: Network, file: Path) -> None:
    """Write the calibration samples as exporters read them."""
    np.savez(file, allow_pickle=False, **{network.inputs[0]: network.calibration.samples})
