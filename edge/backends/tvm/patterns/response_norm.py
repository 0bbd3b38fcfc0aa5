"""Global response normalisation of an image with the channels last: the response template.

with  g = sqrt(sum(x²))  or  sqrt(mean(x²))  over the pixels,  n = g / (mean of g over the channels + epsilon):

x * (scale * n + 1)             ->  response_norm(x, scale, 0)
scale * (x * n) + shift + x     ->  response_norm(x, scale, shift), as ConvNeXt V2 has it
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant, shape
from edge.backends.tvm.patterns.matching import Match, Outcome
from edge.kernels.normalisation import ResponseNorm
from edge.kernels.template import Array

DIGITS = 6
"""Of an epsilon that is scaled by the root of the pixels; beyond is float32's noise."""


@dataclass(frozen=True)
class _Response:
    """N of the formulas.

    Attributes:
        image: x.
        epsilon: for sums.
    """

    image: relax.Expr
    epsilon: float


def match(flow: Dataflow, value: relax.Var) -> Outcome:
    """The match around the division."""
    if (response := _response(flow, value)) is None:
        return None
    found = _after_weighing(flow, value, response.image) or _before_weighing(flow, value, response.image)
    if found is None:
        return None
    result, scale, shift = found
    _, height, width, channels = shape(response.image)
    problem = ResponseNorm(height * width, channels, response.epsilon)
    return Match(
        result, "response_norm", problem, ((response.image, (problem.rows, channels)),), (scale.reshape(-1), shift)
    )


def _response(flow: Dataflow, value: relax.Var) -> _Response | None:
    """Whether a value is n, and of what."""
    if (division := flow.call(value, "relax.divide")) is None:
        return None
    norm, divisor = division.args
    if (sum_ := _with_constant(flow, divisor, "relax.add")) is None or sum_[1].size != 1:
        return None
    mean = flow.call(sum_[0], "relax.mean")
    if mean is None or not mean.args[0].same_as(norm) or _reduced(mean) != [3]:
        return None
    total = _root(flow, norm)
    reduction = flow.call(total, "relax.mean", "relax.sum") if total is not None else None
    if reduction is None or _reduced(reduction) != [1, 2] or shape(reduction.args[0])[0] != 1:
        return None
    if (image := _squared(flow, reduction.args[0])) is None:
        return None
    _, height, width, _ = shape(image)
    pixels = height * width if reduction.op.name == "relax.mean" else 1
    return _Response(image, float(f"{sum_[1].item() * pixels**0.5:.{DIGITS}g}"))


def _reduced(reduction: relax.Call) -> list[int] | None:
    """The axes of a reduction of four dimensions that are kept."""
    attributes = reduction.attrs
    if not attributes.keepdims or attributes.axis is None or len(shape(reduction.args[0])) != 4:
        return None
    return sorted(int(axis) % 4 for axis in attributes.axis)


def _root(flow: Dataflow, value: relax.Expr) -> relax.Expr | None:
    """What a value is the square root of."""
    if (root := flow.call(value, "relax.sqrt")) is not None:
        return root.args[0]
    power = _with_constant(flow, value, "relax.power")
    return power[0] if power is not None and power[1].size == 1 and power[1].item() == 0.5 else None


def _squared(flow: Dataflow, value: relax.Expr) -> relax.Expr | None:
    """What a value is the square of; the square of a magnitude is the value's own."""
    product = flow.call(value, "relax.multiply")
    power = _with_constant(flow, value, "relax.power")
    if product is not None and product.args[0].same_as(product.args[1]):
        base = product.args[0]
    elif power is not None and power[1].size == 1 and power[1].item() == 2:
        base = power[0]
    else:
        return None
    magnitude = flow.call(base, "relax.abs")
    return magnitude.args[0] if magnitude is not None else base


def _with_constant(flow: Dataflow, value: relax.Expr, operator: str) -> tuple[relax.Expr, Array] | None:
    """The computed and the constant operand of the operator that makes a value; an exponent is the second."""
    if (call := flow.call(value, operator)) is None:
        return None
    first, second = call.args
    if (number := constant(second)) is not None:
        return first, number
    number = constant(first)
    return (second, number) if number is not None and operator != "relax.power" else None


def _next(flow: Dataflow, value: relax.Var, operator: str) -> tuple[relax.Var, relax.Expr] | None:
    """The one use of a value, if it is this operator: its result, and the other operand."""
    if (step := flow.next(value, operator)) is None:
        return None
    result, call = step
    return result, call.args[1] if call.args[0].same_as(value) else call.args[0]


def _after_weighing(flow: Dataflow, value: relax.Var, image: relax.Expr) -> tuple[relax.Var, Array, Array] | None:
    """X * (scale * n + 1): the result, scale and shift."""
    channels = shape(image)[-1]
    if (weighed := _next(flow, value, "relax.multiply")) is None:
        return None
    scale = constant(weighed[1])
    if scale is None or scale.size != channels or (plus := _next(flow, weighed[0], "relax.add")) is None:
        return None
    one = constant(plus[1])
    if one is None or not np.all(one == 1) or one.size not in (1, channels):
        return None
    product = _next(flow, plus[0], "relax.multiply")
    if product is None or not product[1].same_as(image):
        return None
    return product[0], scale, np.zeros(channels, np.float32)


def _before_weighing(flow: Dataflow, value: relax.Var, image: relax.Expr) -> tuple[relax.Var, Array, Array] | None:
    """Scale * (x * n) + shift + x: the result, scale and shift."""
    channels = shape(image)[-1]
    product = _next(flow, value, "relax.multiply")
    if product is None or not product[1].same_as(image):
        return None
    if (weighed := _next(flow, product[0], "relax.multiply")) is None:
        return None
    scale, shift = constant(weighed[1]), np.zeros(channels, np.float32)
    if scale is None or scale.size != channels or (total := _next(flow, weighed[0], "relax.add")) is None:
        return None
    if (added := constant(total[1])) is not None and added.size == channels:
        shift, total = added.reshape(-1), _next(flow, total[0], "relax.add")
    if total is None or not total[1].same_as(image):
        return None
    return total[0], scale, shift
