"""Activations as expressions for a kernel's epilogue, made of operations that every vector unit has.

TVM's own GELU calls the C library's ``erff`` for each element. The one here errs by less than 5e-7 (RMS 6e-8, half an
ULP of 1), which disappears in the rounding of the layers around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import numpy as np
import tvm
from tvm import relax, te, tirx

from edge.kernels.template import Array

ERF_LIMIT = 4.0
"""erf rounds to 1 in float32 from 3.92 on."""

# erf(x) = x P(x^2) / Q(x^2) on [0, ERF_LIMIT], lowest power first: the minimax fit of the absolute error by iteratively
# reweighted least squares on 4000 Chebyshev nodes in float64, which is 2.1e-8 before the coefficients are rounded.
ERF_NUMERATOR = (1.12837899, 0.196249649, 0.0534675494, 0.00400366914, 0.000288041105, 1.97481495e-06)
ERF_DENOMINATOR = (1.0, 0.507252872, 0.116476685, 0.0154444706, 0.00121636386, 3.74806852e-05)


def _float32(value: float) -> tvm.ir.Expr:
    return tirx.const(value, "float32")


def _polynomial(coefficients: tuple[float, ...], t: tvm.ir.Expr) -> tvm.ir.Expr:
    return reduce(lambda value, c: value * t + _float32(c), reversed(coefficients[:-1]), _float32(coefficients[-1]))


def _clamp(x: tvm.ir.Expr, low: float, high: float) -> tvm.ir.Expr:
    return tirx.max(tirx.min(x, _float32(high)), _float32(low))


def erf(x: tvm.ir.Expr) -> tvm.ir.Expr:
    """The error function of a float32 expression."""
    limited = tirx.Var("limited", "float32")
    square = tirx.Var("square", "float32")
    ratio = limited * _polynomial(ERF_NUMERATOR, square) / _polynomial(ERF_DENOMINATOR, square)
    return tirx.Let(limited, _clamp(x, -ERF_LIMIT, ERF_LIMIT), tirx.Let(square, limited * limited, ratio))


def gelu(x: tvm.ir.Expr) -> tvm.ir.Expr:
    """GELU in its exact form, 0.5 x (1 + erf(x / sqrt 2))."""
    value = tirx.Var("value", "float32")
    half = value * _float32(0.5)
    return tirx.Let(value, x, half + half * erf(value * _float32(0.5**0.5)))


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


def legalize_gelu(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``relax.nn.gelu`` as one elementwise kernel, for ``relax.transform.LegalizeOps``."""

    def compute(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *index: gelu(x(*index)), name="gelu")

    return builder.call_te(compute, call.args[0], primfunc_name_hint="gelu")
