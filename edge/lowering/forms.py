"""Forms: rewrites that are right for everybody and pay for some; the table of formats says for whom.

A converter may take one form of an operator well and take another apart, run it slowly or leave it to the CPU. Which
form each gets is data: ``Converter.forms`` in ``edge.formats`` names what is applied on top of the common rewrites.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from edge.lowering import (
    batched_product,
    channels_first,
    mean_as_convolution,
    mixing_as_product,
    reshape_views,
    softmax_over_rows,
    split_depthwise,
    transposed_product,
)
from edge.lowering.lower import Lowered, Outcome, lower
from edge.lowering.rewrite import Rewrite

FORMS: dict[str, Rewrite] = {
    form.name: form
    for form in (
        batched_product.REWRITE,
        channels_first.REWRITE,
        mean_as_convolution.REWRITE,
        mixing_as_product.REWRITE,
        softmax_over_rows.REWRITE,
        split_depthwise.REWRITE,
        transposed_product.REWRITE,
    )
}
"""By name."""


def give_form(
    common: Lowered,
    forms: tuple[str, ...],
    samples: Tensor,
    *,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    model: str | None = None,
) -> Lowered:
    """The lowered program in the form that a converter wants; without any form, the very same.

    Taking it up again writes its reshapes as views, which hold for one order in memory only, and forms leave several in
    a row: at last they become reshapes.

    Args:
        common: what everybody gets.
        forms: names, in the order of application.
        samples: (N, C, H, W) float32, what the proofs run on.
        on_outcome: called after each form.
        model: for the error's text.

    Raises:
        ExportError: a form changed what the network computes.
    """
    if not forms:
        return common
    rewrites = (*(FORMS[name] for name in forms), reshape_views.REWRITE)
    return lower(common.program, samples, rewrites=rewrites, on_outcome=on_outcome, model=model)
