"""Activations as expressions for a kernel's epilogue, made of operations that every vector unit has.

TVM's own GELU calls the C library's ``erff`` for each element, a hundred cycles each. The one here errs by less than
3e-7, and by 5e-8 RMS where the input is normally distributed, as PyTorch's own does in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import tvm
from tvm import relax, te, tirx

from edge.kernels.template import Array

# Phi(-a) = Q(a)^8 on [0, GELU_LIMIT], Q lowest power first: the minimax fit of the absolute error of a Phi(-a) by
# iteratively reweighted least squares on 3000 Chebyshev nodes in float64, 3.2e-9 before the coefficients are rounded.
GELU_LIMIT = 5.5
"""From here on a Phi(-a) is less than half an ULP of a."""
GELU_ROOT = (
    *(0.917003989, -0.0914574116, -0.0319280773, -0.000671955699, 0.00150436233),
    *(3.42950298e-05, -6.02576365e-05, 7.47955301e-06, -2.95881932e-07),
)


def _float32(value: float) -> tvm.ir.Expr:
    return tirx.const(value, "float32")


def _polynomial(coefficients: Sequence[float], x: tvm.ir.Expr) -> tvm.ir.Expr:
    """A polynomial by Estrin's scheme: pairs of terms, pairs of pairs.

    Half as deep as Horner's, so that the pipes need not wait; and a multiply-add that overwrites its addend (Arm) needs
    a copy of a constant for each of the first pairs only.
    """
    terms = [_float32(value) for value in coefficients]
    powers: list[tuple[tirx.Var, tvm.ir.Expr]] = []
    while len(terms) > 1:
        square = tirx.Var(f"power{2 << len(powers)}", "float32")
        powers.append((square, x * x))
        pairs = [terms[i] + x * terms[i + 1] for i in range(0, len(terms) - 1, 2)]
        if len(terms) % 2:
            pairs[-1] = pairs[-1] + square * terms[-1]
        terms, x = pairs, square
    return reduce(lambda body, power: tirx.Let(*power, body), reversed(powers), terms[0])


def _clamp(x: tvm.ir.Expr, low: float, high: float) -> tvm.ir.Expr:
    return tirx.max(tirx.min(x, _float32(high)), _float32(low))


def gelu(x: tvm.ir.Expr) -> tvm.ir.Expr:
    """GELU in its exact form, x Phi(x) with the normal distribution's Phi, from multiply-adds alone.

        gelu(x) = max(x, 0) - a Phi(-a),  a = |x|

    Phi(-a) falls from 1/2 to nothing, which takes a polynomial of high degree, or a division. Its eighth root is so
    tame that degree 8 will do, and three squarings bring it back.
    """
    value, magnitude = tirx.Var("value", "float32"), tirx.Var("magnitude", "float32")
    tail = _to_the_eighth(_polynomial(GELU_ROOT, magnitude))
    result = tirx.Let(magnitude, tirx.min(tirx.abs(value), _float32(GELU_LIMIT)), _relu(value) - magnitude * tail)
    return tirx.Let(value, x, result)


def _to_the_eighth(x: tvm.ir.Expr) -> tvm.ir.Expr:
    for name in ("second", "fourth", "eighth"):
        root = tirx.Var(name, "float32")
        x = tirx.Let(root, x, root * root)
    return x


def _identity(x: tvm.ir.Expr) -> tvm.ir.Expr:
    return x


def _relu(x: tvm.ir.Expr) -> tvm.ir.Expr:
    return tirx.max(x, _float32(0))


def _relu6(x: tvm.ir.Expr) -> tvm.ir.Expr:
    return _clamp(x, 0, 6)


EXPRESSIONS: dict[str, Callable[[tvm.ir.Expr], tvm.ir.Expr]] = {
    "none": _identity,
    "relu": _relu,
    "relu6": _relu6,
    "gelu": gelu,
}
"""By the name that problems have for it."""


def expression(name: str, x: tvm.ir.Expr) -> tvm.ir.Expr:
    """The activation of that name of a float32 expression."""
    return EXPRESSIONS[name](x)


def _erf64(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


REFERENCES: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "gelu": lambda x: 0.5 * x * (1 + _erf64(x / np.sqrt(2))),
}
"""The same activations as plain formulas on arrays, for the templates' references."""


def with_shortcut(name: str, order: str, value: tvm.ir.Expr, other: tvm.ir.Expr | None) -> tvm.ir.Expr:
    """A sum's activation, and the shortcut "before" or "after" it, if there is one."""
    if order == "before":
        return expression(name, value + other)
    activated = expression(name, value)
    return activated + other if order == "after" else activated


def with_shortcut_reference(name: str, order: str, value: Array, *other: Array) -> Array:
    """The same of arrays."""
    if order == "before":
        return REFERENCES[name](value + other[0])
    activated = REFERENCES[name](value)
    return activated + other[0] if order == "after" else activated


def legalize_gelu(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``relax.nn.gelu`` as one elementwise kernel, for ``relax.transform.LegalizeOps``."""

    def compute(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *index: gelu(x(*index)), name="gelu")

    return builder.call_te(compute, call.args[0], primfunc_name_hint="gelu")
