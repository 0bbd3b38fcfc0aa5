"""From the network as defined to the program the backends take: one exact rewrite a file, each proven in float64."""

from edge.lowering.forms import give_form
from edge.lowering.lower import Lowered, Outcome, lower
from edge.lowering.rewrite import Refusal, Rewrite

__all__ = ["Lowered", "Outcome", "Refusal", "Rewrite", "give_form", "lower"]
