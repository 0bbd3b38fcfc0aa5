"""The lowering stage: the rewrites in order, each with its proof."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from edge.errors import ExportError
from edge.lowering import (
    drop_training_leftovers,
    fold_addend,
    fold_attention_scale,
    fold_batch_norm_backward,
    fold_batch_norm_forward,
    fold_constants,
    fold_layer_norm_forward,
    fold_layer_scale,
    mean_over_positions,
    merge_parallel_layers,
    partial_convolution,
    reparameterisation,
    reshape_views,
    trim_kernels,
    unfold_batch_norm,
)
from edge.lowering.proof import BOUND_DB, evaluate, largest_activation, proof_db
from edge.lowering.rewrite import Refusal, Rewrite, apply_everywhere

REWRITES: tuple[Rewrite, ...] = (
    reshape_views.REWRITE,
    drop_training_leftovers.REWRITE,
    fold_constants.REWRITE,
    mean_over_positions.REWRITE,
    trim_kernels.REWRITE,
    fold_batch_norm_backward.REWRITE,
    fold_batch_norm_forward.REWRITE,
    fold_layer_norm_forward.REWRITE,
    unfold_batch_norm.REWRITE,
    merge_parallel_layers.REWRITE,
    fold_layer_scale.REWRITE,
    fold_attention_scale.REWRITE,
    fold_addend.REWRITE,
    partial_convolution.REWRITE,
)


@dataclass(frozen=True)
class Outcome:
    """What one rewrite did.

    Attributes:
        proof_db: signal to difference in float64; None where nothing matched, infinite where the bits are the same.
    """

    name: str
    algebra: str
    matches: int
    refused: tuple[Refusal, ...]
    proof_db: float | None


@dataclass(frozen=True)
class Lowered:
    """The lowered program in float32, and how it came about.

    Attributes:
        largest_activation: the largest magnitude inside the network on the samples of the proof; float16 ends at 65504.
    """

    program: ExportedProgram
    outcomes: tuple[Outcome, ...]
    largest_activation: float

    @property
    def parameters(self) -> int:
        """Values that are left after the folds."""
        return sum(values.numel() for values in self.program.parameters())


def _drop_unused_constants(module: GraphModule) -> None:
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [n for n, _ in [*module.named_parameters(), *module.named_buffers()] if n not in used]:
        owner, _, leaf = name.rpartition(".")
        delattr(module.get_submodule(owner), leaf)


def lower(
    network: nn.Module | ExportedProgram,
    samples: Tensor,
    *,
    rewrites: tuple[Rewrite, ...] = REWRITES,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    model: str | None = None,
) -> Lowered:
    """Merge a network's branches, apply the rewrites to its program, and prove each step.

    All of it happens in float64: the folds lose nothing to float32 on the way, and the proof compares what the
    algebra says.

    Args:
        network: any with one image input, in evaluation mode; or its program, batch 1, which has no branches to merge.
        samples: (N, C, H, W) float32, what the proofs run on.
        rewrites: in order.
        on_outcome: called after each rewrite.
        model: for the error's text.

    Raises:
        ExportError: a rewrite changed what the network computes.
    """
    outcomes: list[Outcome] = []

    def record(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)
        if outcome.proof_db is not None and not outcome.proof_db >= BOUND_DB:
            raise ExportError(
                f"{outcome.name} changed the network: {outcome.proof_db:.1f} dB in float64, at least {BOUND_DB:g} "
                "expected",
                stage="lower",
                model=model,
                next_step="this is a defect of the rewrite; please report it with the network",
            )

    program = network if isinstance(network, ExportedProgram) else _exported(network, samples, record)
    shared = program.run_decompositions({}).module(check_guards=False)
    graph = copy.deepcopy(shared).double()  # the program's weights are the caller's own tensors
    assert isinstance(graph, GraphModule)
    doubles = samples.double()
    outputs = evaluate(graph, doubles)
    for rewrite in rewrites:
        matches, refused = apply_everywhere(rewrite, graph)
        proof = None
        if matches:
            before, outputs = outputs, evaluate(graph, doubles)
            proof = proof_db(before, outputs)
        record(Outcome(rewrite.name, rewrite.algebra, matches, refused, proof))
    _drop_unused_constants(graph)
    largest = largest_activation(graph, doubles)
    lowered = torch.export.export(graph.float(), (samples[:1].float(),))
    return Lowered(lowered, tuple(outcomes), largest)


def _exported(network: nn.Module, samples: Tensor, record: Callable[[Outcome], None]) -> ExportedProgram:
    """The network's program with its branches merged; float64 if there were any, so that nothing is rounded twice."""
    merges, proof = 0, None
    if reparameterisation.offered(network):
        samples = samples.double()
        before = evaluate(copy.deepcopy(network).double(), samples)
        network, merges = reparameterisation.merged(network)
        proof = proof_db(before, evaluate(network, samples))
    record(Outcome(reparameterisation.NAME, reparameterisation.ALGEBRA, merges, (), proof))
    return torch.export.export(network, (samples[:1],))
