"""Activations as Relax has them: one operator, or several that are one together.

sigmoid(x)                                       ->  sigmoid
multiply(x, sigmoid(x))                          ->  silu
minimum(maximum(x, 0), 6)                        ->  relu6
divide(minimum(maximum(add(x, 3), 0), 6), 6)     ->  hard_sigmoid
divide(multiply(x, minimum(maximum(add(x, 3), 0), 6)), 6), or the division before the product  ->  hard_swish
"""

from __future__ import annotations

from tvm import relax

from edge.backends.tvm.dataflow import Dataflow, constant
from edge.kernels.activation import EXPRESSIONS

STEPS: dict[tuple[str, str, float | None], str] = {
    ("none", "relax.nn.relu", None): "relu",
    ("none", "relax.nn.gelu", None): "gelu",
    ("none", "relax.sigmoid", None): "sigmoid",
    ("none", "relax.maximum", 0.0): "relu",
    ("relu", "relax.minimum", 6.0): "relu6",
    ("none", "relax.add", 3.0): "x + 3",
    ("x + 3", "relax.maximum", 0.0): "relu(x + 3)",
    ("x + 3", "relax.nn.relu", None): "relu(x + 3)",
    ("relu(x + 3)", "relax.minimum", 6.0): "relu6(x + 3)",
    ("relu6(x + 3)", "relax.divide", 6.0): "hard_sigmoid",
    ("x relu6(x + 3)", "relax.divide", 6.0): "hard_swish",
}
"""What a value becomes by an operator with one tensor and this number, or without a number. A name that problems know
is an activation, any other is on the way to one."""

PRODUCTS = {"sigmoid": "silu", "relu6(x + 3)": "x relu6(x + 3)", "hard_sigmoid": "hard_swish"}
"""What it becomes by a product with the value that it began with."""

OPERATORS = sorted({operator for _, operator, _ in STEPS})


def activation(flow: Dataflow, value: relax.Var) -> tuple[str, relax.Var] | None:
    """The activation of a value that nothing but the activation uses: its name, and its result.

    Of several, such as relu and relu6, the one that covers the most operators.
    """
    product = next((user for user in flow.users(value) if _multiplies(flow, user, value)), None)
    following = [user for user in flow.users(value) if user is None or product is None or not user.same_as(product)]
    state, current, found = "none", value, None
    while len(following) == 1 and following[0] is not None:
        reached = following[0]
        if product is not None and reached.same_as(product):
            step, product = PRODUCTS.get(state), None
        else:
            step = STEPS.get((state, *_operator(flow, reached, current)))
        if step is None:
            break
        state, current, following = step, reached, list(flow.users(reached))
        if state in EXPRESSIONS and product is None:
            found = (state, current)
    return found


def _multiplies(flow: Dataflow, user: relax.Var | None, value: relax.Var) -> bool:
    """Whether a user is a product of the value with another."""
    call = flow.call(user, "relax.multiply") if user is not None else None
    return call is not None and sum(argument.same_as(value) for argument in call.args) == 1


def _operator(flow: Dataflow, reached: relax.Var, value: relax.Var) -> tuple[str, float | None]:
    """The operator that makes the next value, and its number; nothing known where its other operand is a tensor."""
    call = flow.call(reached, *OPERATORS)
    if call is None:
        return "", None
    others = [argument for argument in call.args if not argument.same_as(value)]
    if not others:
        return call.op.name, None
    number = constant(others[0])
    if number is None or number.size != 1 or (call.op.name == "relax.divide" and not call.args[0].same_as(value)):
        return "", None
    return call.op.name, float(number.item())
