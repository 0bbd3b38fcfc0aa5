"""Activations as expressions for a kernel's epilogue, made of operations that every vector unit has.

TVM's own GELU calls the C library's ``erff`` for each element, and its sigmoid ``expf``, a hundred cycles each. GELU
here errs by less than 3e-7, and by 5e-8 RMS where the input is normally distributed, as PyTorch's own does in float32;
sigmoid and SiLU by two units in the last place. None divides: a core's divider takes longer than Newton's method.
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

# exp on half a factor of two around 1, by the same fit of the relative error: 1.8e-8 with the coefficients as rounded.
EXPONENTIAL = (1.0, 1.0, 0.499999940, 0.166664302, 0.0416680053, 0.00837419555, 0.00138436072)
EXPONENT_LIMIT = 87.0
"""exp(-a) has no smaller exponent than float32 up to here, and is nothing beside 1 long before."""
LOG2_E, LN2_HIGH, LN2_LOW = 1.44269502, 0.693115234375, 3.19461833e-05
"""The natural logarithm of 2 in two parts, the first of so few bits that its multiples are exact."""
ROUNDING = 12582912.0
"""1.5 * 2^23: what is added to it is rounded to a whole number, in the sum's last bits."""
MANTISSA_BITS = 23
# The reciprocal on [1, 2] errs by 1/99 at first: 1 - d q(d) = T3(2 d - 3) / -99, with Chebyshev's polynomial T3.
RECIPROCAL = (210 / 99, -144 / 99, 32 / 99)
RECIPROCAL_STEPS = 2
"""Each squares the error."""


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


def sigmoid(x: tvm.ir.Expr) -> tvm.ir.Expr:
    """1 / (1 + exp(-x)), from the exponential of -|x|, which neither overflows nor cancels."""
    value = tirx.Var("value", "float32")
    magnitude = tirx.min(tirx.abs(value), _float32(EXPONENT_LIMIT))
    return tirx.Let(value, x, _logistic(magnitude, lambda small: tirx.Select(value < 0, small, _float32(1))))


def silu(x: tvm.ir.Expr) -> tvm.ir.Expr:
    """SiLU, x sigmoid(x) = max(x, 0) - a sigmoid(-a),  a = |x|."""
    value, magnitude = tirx.Var("value", "float32"), tirx.Var("magnitude", "float32")
    result = _relu(value) - _logistic(magnitude, lambda small: magnitude * small)
    return tirx.Let(value, x, tirx.Let(magnitude, tirx.min(tirx.abs(value), _float32(EXPONENT_LIMIT)), result))


def _logistic(magnitude: tvm.ir.Expr, numerator: Callable[[tvm.ir.Expr], tvm.ir.Expr]) -> tvm.ir.Expr:
    """What ``numerator`` makes of exp(-magnitude), over 1 + exp(-magnitude); the magnitude is in [0, the limit]."""
    small, denominator = tirx.Var("small", "float32"), tirx.Var("denominator", "float32")
    result = numerator(small) * _reciprocal(denominator)
    result = tirx.Let(denominator, small + _float32(1), result)
    return tirx.Let(small, _exponential(-magnitude), result)


def _exponential(x: tvm.ir.Expr) -> tvm.ir.Expr:
    """exp(x) = 2^n exp(x - n ln 2), the power of two made in the exponent's bits; for x in [-EXPONENT_LIMIT, 0]."""
    argument, rounded = tirx.Var("argument", "float32"), tirx.Var("rounded", "float32")
    power, rest = tirx.Var("power", "float32"), tirx.Var("rest", "float32")
    bits = [tirx.reinterpret("int32", value) for value in (_polynomial(EXPONENTIAL, rest), rounded)]
    result = tirx.reinterpret("float32", bits[0] + (bits[1] << MANTISSA_BITS))
    result = tirx.Let(rest, argument - power * _float32(LN2_HIGH) - power * _float32(LN2_LOW), result)
    result = tirx.Let(power, rounded - _float32(ROUNDING), result)
    result = tirx.Let(rounded, argument * _float32(LOG2_E) + _float32(ROUNDING), result)
    return tirx.Let(argument, x, result)


def _reciprocal(x: tvm.ir.Expr) -> tvm.ir.Expr:
    """1 / x by Newton's method, for x in [1, 2]."""
    near = _polynomial(RECIPROCAL, x)
    for _ in range(RECIPROCAL_STEPS):
        before = tirx.Var("near", "float32")
        near = tirx.Let(before, near, before + before * (_float32(1) - x * before))
    return near


def _hard_sigmoid(x: tvm.ir.Expr) -> tvm.ir.Expr:
    return _clamp(x * _float32(1 / 6) + _float32(0.5), 0, 1)


def _hard_swish(x: tvm.ir.Expr) -> tvm.ir.Expr:
    value = tirx.Var("value", "float32")
    return tirx.Let(value, x, value * _hard_sigmoid(value))


EXPRESSIONS: dict[str, Callable[[tvm.ir.Expr], tvm.ir.Expr]] = {
    "none": _identity,
    "relu": _relu,
    "relu6": _relu6,
    "gelu": gelu,
    "sigmoid": sigmoid,
    "silu": silu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
}
"""By the name that problems have for it."""


def expression(name: str, x: tvm.ir.Expr) -> tvm.ir.Expr:
    """The activation of that name of a float32 expression."""
    return EXPRESSIONS[name](x)


def _erf64(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _sigmoid64(x: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


REFERENCES: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "gelu": lambda x: 0.5 * x * (1 + _erf64(x / np.sqrt(2))),
    "sigmoid": _sigmoid64,
    "silu": lambda x: x * _sigmoid64(x),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
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


def _legalize(name: str) -> Callable[[relax.BlockBuilder, relax.Call], relax.Expr]:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        def compute(x: te.Tensor) -> te.Tensor:
            return te.compute(x.shape, lambda *index: expression(name, x(*index)), name=name)

        return builder.call_te(compute, call.args[0], primfunc_name_hint=name)

    return legalize


LEGALIZE = {"relax.nn.gelu": _legalize("gelu"), "relax.sigmoid": _legalize("sigmoid")}
"""Operators of Relax as elementwise kernels, for ``relax.transform.LegalizeOps``."""
