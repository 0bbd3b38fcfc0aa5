"""What a pattern says of a value: that a kernel of ours computes it, or why none does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant, shape
from edge.backends.tvm.patterns.activations import activation
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
    found = Epilogue(value)
    while found.order != "after":
        if found.activation == "none" and (named := activation(flow, found.result)) is not None:
            found.activation, found.result = named
        elif not _add(flow, found):
            break
    if found.order == "before" and found.activation == "none":
        found.order = "after"  # the same without an activation, and its usual name
    return found


def _add(flow: Dataflow, found: Epilogue) -> bool:
    """Take an addition over as bias or shortcut; whether that was possible."""
    if (step := flow.next(found.result, "relax.add")) is None:
        return False
    used, call = step
    other = call.args[1] if call.args[0].same_as(found.result) else call.args[0]
    added, channels = constant(other), shape(found.result)[-1]
    if found.shortcut is not None or other.same_as(found.result):
        return False
    if added is None:
        if shape(other) != shape(found.result):
            return False
        found.shortcut, found.order = other, "before" if found.activation == "none" else "after"
    elif found.activation == "none" and added.ndim and added.size == added.shape[-1] == channels:
        found.bias = added.reshape(-1) if found.bias is None else found.bias + added.reshape(-1)
    else:
        return False
    found.result = used
    return True
