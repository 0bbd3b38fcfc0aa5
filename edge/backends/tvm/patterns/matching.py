"""What a pattern says of a value: that a kernel of ours computes it, or why none does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant, shape
from edge.kernels.template import Array, Problem


@dataclass(frozen=True)
class Match:
    """A value that a template computes.

    Attributes:
        result: the value.
        template: the template's name.
        problem: for the template.
        activations: the kernel's inputs, each with the shape in which the kernel takes it.
        weights: in the template's plain layout.
    """

    result: relax.Var
    template: str
    problem: Problem
    activations: tuple[tuple[relax.Expr, tuple[int, ...]], ...]
    weights: tuple[Array, ...]


@dataclass(frozen=True)
class Refusal:
    """An operator that a pattern looks for, in a form that its template does not take."""

    operator: str
    reason: str


Outcome = Match | Refusal | None

ACTIVATIONS = {"relax.nn.relu": "relu", "relax.nn.gelu": "gelu"}
"""Relax operators that an epilogue can be, by the names that problems have for them."""

CLAMPS = {("none", "relax.maximum", 0.0): "relu", ("relu", "relax.minimum", 6.0): "relu6"}
"""What the activation so far becomes when it is clamped at a constant."""


@dataclass
class Epilogue:
    """What follows a sum and can be computed while it is in registers.

    Attributes:
        result: the last value it covers.
        bias: one value for each channel.
        activation: its name.
        shortcut: the tensor that is added.
        order: "before" the activation or "after" it; "none" without a shortcut.
    """

    result: relax.Var
    bias: Array | None = None
    activation: str = "none"
    shortcut: relax.Expr | None = None
    order: str = field(default="none")

    @property
    def fields(self) -> dict[str, Any]:
        """Of a problem."""
        return {"bias": self.bias is not None, "activation": self.activation, "shortcut": self.order}

    @property
    def weights(self) -> tuple[Array, ...]:
        """The bias, if there is one."""
        return () if self.bias is None else (self.bias,)


def epilogue(flow: Dataflow, value: relax.Var) -> Epilogue:
    """Follow a sum along its only uses: bias, then a shortcut and an activation in either order."""
    found, channels = Epilogue(value), shape(value)[-1]
    while step := flow.next(found.result, "relax.add", "relax.maximum", "relax.minimum", *ACTIVATIONS):
        used, call = step
        if call.op.name in ("relax.maximum", "relax.minimum"):
            bound = constant(call.args[1])
            clamp = (
                found.activation,
                call.op.name,
                float(bound.item()) if bound is not None and bound.size == 1 else None,
            )
            if clamp not in CLAMPS:
                break
            found.activation = CLAMPS[clamp]
        elif call.op.name in ACTIVATIONS:
            if found.activation != "none":
                break
            found.activation = ACTIVATIONS[call.op.name]
        else:
            other = call.args[1] if call.args[0].same_as(found.result) else call.args[0]
            added = constant(other)
            nothing_else_yet = found.activation == "none" and found.shortcut is None
            if added is not None and added.size == added.shape[-1] == channels and nothing_else_yet:
                found.bias = added.reshape(-1) if found.bias is None else found.bias + added.reshape(-1)
            elif (
                added is None
                and shape(other) == shape(value)
                and not other.same_as(found.result)
                and found.shortcut is None
            ):
                found.shortcut, found.order = other, "before" if found.activation == "none" else "after"
            else:
                break
        found.result = used
        if found.order == "after":
            break
    if found.order == "before" and found.activation == "none":
        found.order = "after"  # the same without an activation, and its usual name
    return found
