"""Lower: the program that everybody gets, and on top of it the forms that a converter is served best with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from edge import lowering
from edge.formats import FORMATS, Converter
from edge.lowering import Lowered, Outcome
from edge.lowering.attention import has_attention
from edge.stages.define import Network, proof_samples


@dataclass(frozen=True)
class Programs:
    """What the converters read.

    Attributes:
        formed: by the forms that were applied, in order; the program that has none is always there.
    """

    formed: dict[tuple[str, ...], Lowered]

    @property
    def common(self) -> Lowered:
        """The program without any form."""
        return self.formed[()]

    def of(self, converter: Converter) -> Lowered:
        """The program of a converter."""
        return self.formed[converter.forms]

    @property
    def steps(self) -> list[tuple[Outcome, tuple[str, ...]]]:
        """What was done, in order, and for which formats alone; none of them named is all of them.

        A form that found nothing is left out: most networks have use for few.
        """
        return [
            (outcome, served(forms))
            for forms, lowered in self.formed.items()
            for outcome in lowered.outcomes
            if not forms or outcome.matches or outcome.refused
        ]

    def save(self, folder: Path) -> dict[tuple[str, ...], Path]:
        """Write the programs as exporters read them: the files, by the forms."""
        files = {forms: folder / f"program{index}.pt2" for index, forms in enumerate(self.formed)}
        for forms, file in files.items():
            torch.export.save(self.formed[forms].program, file)
        return files

    @property
    def largest_activation(self) -> float:
        """The largest magnitude inside any of the programs."""
        return max(lowered.largest_activation for lowered in self.formed.values())

    @property
    def attention(self) -> bool:
        """Whether the network weighs values by a softmax."""
        return has_attention(self.common.program)


def served(forms: tuple[str, ...]) -> tuple[str, ...]:
    """The formats whose converter asks for these forms; none if there is nothing to ask for."""
    found = {
        format.title if converter is format.default else f"{format.title} ({name})": converter.forms == forms
        for format in FORMATS.values()
        for name, converter in format.converters.items()
    }
    return tuple(title for title, asks in found.items() if asks and forms)


def lower(
    network: Network,
    converters: Iterable[Converter],
    model: str,
    on_outcome: Callable[[Outcome, tuple[str, ...]], None],
) -> Programs:
    """Lower a network for some converters, with a proof of every step.

    Args:
        network: as defined.
        converters: that will read it.
        model: for the errors.
        on_outcome: called after each step, with the formats it is for; none is all of them.

    Raises:
        ExportError: a step changed what the network computes.
    """
    samples = proof_samples(network)

    def note_for(formats: tuple[str, ...]) -> Callable[[Outcome], None]:
        return lambda outcome: on_outcome(outcome, formats)

    common = lowering.lower(network.definition, samples, model=model, on_outcome=note_for(()))
    formed = {
        forms: lowering.give_form(common, forms, samples, model=model, on_outcome=note_for(served(forms)))
        for forms in sorted({(), *(converter.forms for converter in converters)})
    }
    return Programs(formed)
