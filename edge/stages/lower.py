"""Lower: the program that everybody gets, and on top of it the forms that a converter is served best with.

Each program is saved as soon as it is made. One of a billion bytes is not held while the exporters work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from edge import lowering
from edge.formats import FORMATS, Converter
from edge.lowering import Outcome
from edge.lowering.attention import has_attention
from edge.stages.define import Definition, Network, proof_samples


@dataclass(frozen=True)
class Program:
    """A lowered program, and how it came about.

    Attributes:
        file: as ``torch.export`` saves it.
        outcomes: of the rewrites that it has on top of the common ones; of the common program all.
        largest_activation: the largest magnitude inside it on the samples of the proof.
        parameters: values that are left after the folds.
    """

    file: Path
    outcomes: tuple[Outcome, ...]
    largest_activation: float
    parameters: int


@dataclass(frozen=True)
class Programs:
    """What the converters read.

    Attributes:
        formed: by the forms that were applied, in order; the program that has none is always there.
        attention: whether the network weighs values by a softmax.
    """

    formed: dict[tuple[str, ...], Program]
    attention: bool

    @property
    def common(self) -> Program:
        """The program without any form."""
        return self.formed[()]

    def of(self, converter: Converter) -> Program:
        """The program of a converter."""
        return self.formed[converter.forms]

    @property
    def steps(self) -> list[tuple[Outcome, tuple[str, ...]]]:
        """What was done, in order, and for which formats alone; none of them named is all of them.

        A form that found nothing is left out: most networks have use for few.
        """
        return [
            (outcome, served(forms))
            for forms, program in self.formed.items()
            for outcome in program.outcomes
            if not forms or outcome.matches or outcome.refused
        ]

    @property
    def largest_activation(self) -> float:
        """The largest magnitude inside any of the programs."""
        return max(program.largest_activation for program in self.formed.values())


def served(forms: tuple[str, ...]) -> tuple[str, ...]:
    """The formats whose converter asks for these forms; none if there is nothing to ask for."""
    found = {
        format.title if converter is format.default else f"{format.title} ({name})": converter.forms == forms
        for format in FORMATS.values()
        for name, converter in format.converters.items()
    }
    return tuple(title for title, asks in found.items() if asks and forms)


def lower(
    definition: Definition,
    network: Network,
    converters: Iterable[Converter],
    model: str,
    folder: Path,
    on_outcome: Callable[[Outcome, tuple[str, ...]], None],
) -> Programs:
    """Lower a network for some converters, with a proof of every step.

    Args:
        definition: the network itself.
        network: what is known of it.
        converters: that will read it.
        model: for the errors.
        folder: exists; receives the programs.
        on_outcome: called after each step, with the formats it is for; none is all of them.

    Raises:
        ExportError: a step changed what the network computes.
    """
    samples = proof_samples(network)

    def note_for(formats: tuple[str, ...]) -> Callable[[Outcome], None]:
        return lambda outcome: on_outcome(outcome, formats)

    common = lowering.lower(definition, samples, model=model, on_outcome=note_for(()))
    formed: dict[tuple[str, ...], Program] = {}
    for forms in sorted({(), *(converter.forms for converter in converters)}):
        lowered = lowering.give_form(common, forms, samples, model=model, on_outcome=note_for(served(forms)))
        file = folder / f"program{len(formed)}.pt2"
        torch.export.save(lowered.program, file)
        formed[forms] = Program(file, lowered.outcomes, lowered.largest_activation, lowered.parameters)
    return Programs(formed, has_attention(common.program))
