"""Every operation of the evaluator on its own: built with coremltools, saved, read back, compared with float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
import mil_files
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from test_coreml_compressed_weights import WEIGHTS
from torch import Tensor

from edge.runtimes.mil import MilError, Program
from edge.runtimes.mil.registry import OPERATIONS

generator = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return generator.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return generator.uniform(0.5, 2.0, shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One operation with its arguments.

    ``build`` and ``expected`` get the inputs and then the constants: the one as MIL variables and arrays of the tested
    type, the other as float64 tensors of the same values.
    """

    operation: str
    build: Callable[..., Any]
    expected: Callable[..., Tensor]
    inputs: tuple[np.ndarray, ...]
    constants: tuple[np.ndarray, ...] = ()
    opset: Any = ct.target.iOS16
    label: str = ""

    @property
    def name(self) -> str:
        return f"{self.operation}-{self.label}" if self.label else self.operation


def simple(
    operation: str, expected: Callable[..., Tensor], *inputs: np.ndarray, label: str = "", **arguments: Any
) -> Case:
    """An operation whose tensors are all inputs, named as MIL names them: x, or x and y.

    Numbers that MIL wants in the type of x (alpha, beta, epsilon) are exact in either type.
    """

    def build(*variables: Any) -> Any:
        scalar = types.nptype_from_builtin(variables[0].dtype)
        typed = {k: scalar(v) if k in ("alpha", "beta", "epsilon") else v for k, v in arguments.items()}
        return getattr(mb, operation)(**dict(zip("xy", variables, strict=False)), **typed)

    return Case(operation, build, expected, inputs, label=label)


EPSILON = 2.0**-10
X = normal(2, 3, 6, 8)
Y = normal(2, 3, 6, 8)
ROW = normal(8)

UNARY = [
    simple("abs", torch.abs, X),
    simple("erf", torch.special.erf, X),
    simple("exp", lambda x: torch.e**x, X),
    simple("sqrt", lambda x: x**0.5, positive(3, 4)),
    simple("square", lambda x: x * x, X),
    simple("log", lambda x: torch.log(x + 0.25), positive(3, 4), epsilon=0.25),
    simple("rsqrt", lambda x: (x + 0.25) ** -0.5, positive(3, 4), epsilon=0.25),
    simple("inverse", lambda x: 1 / (x + 0.25), positive(3, 4), epsilon=0.25),
    simple("clip", lambda x: x.maximum(torch.tensor(-0.5)).minimum(torch.tensor(0.75)), X, alpha=-0.5, beta=0.75),
    simple("relu", lambda x: x * (x > 0), X),
    simple("relu6", lambda x: torch.where(x < 0, 0.0, torch.where(x > 6, 6.0, x)), 5 * X),
    simple("sigmoid", lambda x: 1 / (1 + torch.exp(-x)), X),
    simple("silu", lambda x: x / (1 + torch.exp(-x)), X),
    simple("tanh", lambda x: (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1), X),
    simple("gelu", lambda x: x / 2 * (1 + torch.special.erf(x / math.sqrt(2))), X, mode="EXACT", label="exact"),
    simple(
        "gelu",
        lambda x: x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        X,
        mode="TANH_APPROXIMATION",
        label="tanh",
    ),
    simple("gelu", lambda x: x / (1 + torch.exp(-1.702 * x)), X, mode="SIGMOID_APPROXIMATION", label="sigmoid"),
    simple("leaky_relu", lambda x: torch.where(x > 0, x, 0.125 * x), X, alpha=0.125),
    simple("sigmoid_hard", lambda x: (0.25 * x + 0.5).clamp(0, 1), 3 * X, alpha=0.25, beta=0.5),
    Case(
        "prelu",
        lambda x, a: mb.prelu(x=x, alpha=a),
        lambda x, a: torch.where(x > 0, x, a.reshape(3, 1, 1) * x),
        (X,),
        (positive(3),),
    ),
]

BINARY = [
    simple("add", lambda x, y: x + y, X, Y),
    simple("add", lambda x, y: x + y, X, ROW, label="broadcast"),
    simple("sub", lambda x, y: x - y, X, ROW),
    simple("mul", lambda x, y: x * y, X, normal(3, 1, 1)),
    simple("real_div", lambda x, y: x / y, X, positive(8)),
    simple("pow", lambda x, y: torch.exp(y * torch.log(x)), positive(4, 8), normal(4, 8)),
    simple("maximum", lambda x, y: torch.where(x > y, x, y), X, Y),
    simple("minimum", lambda x, y: torch.where(x < y, x, y), X, Y),
]


def decision(operation: str, expected: Callable[..., Tensor]) -> Case:
    """A comparison on operands of which a third are equal; a network's output cannot be a flag, so it selects."""
    same = np.arange(X.size).reshape(X.shape) % 3 == 0

    def build(x: Any, y: Any) -> Any:
        return mb.select(cond=getattr(mb, operation)(x=x, y=y), a=x, b=mb.mul(x=y, y=y))

    return Case(operation, build, lambda x, y: torch.where(expected(x, y), x, y * y), (X, np.where(same, X, Y)))


def logic(operation: str, expected: Callable[..., Tensor]) -> Case:
    """Flags from signs, combined, selecting."""

    def build(x: Any, y: Any) -> Any:
        flags = {"x": mb.greater(x=x, y=mb.sub(x=x, y=x))}
        if operation != "logical_not":
            flags["y"] = mb.greater(x=y, y=mb.sub(x=x, y=x))
        return mb.select(cond=getattr(mb, operation)(**flags), a=x, b=y)

    return Case(operation, build, lambda x, y: torch.where(expected(x > 0, y > 0), x, y), (X, Y))


DECISIONS = [
    decision("equal", lambda x, y: x == y),
    decision("not_equal", lambda x, y: x != y),
    decision("greater", lambda x, y: x > y),
    decision("greater_equal", lambda x, y: x >= y),
    decision("less", lambda x, y: x < y),
    decision("less_equal", lambda x, y: x <= y),
    logic("logical_and", lambda a, b: a & b),
    logic("logical_or", lambda a, b: a | b),
    logic("logical_not", lambda a, _: ~a),
    Case(
        "select",
        lambda x, y: mb.select(cond=mb.less(x=x, y=y), a=x, b=y),
        lambda x, y: torch.minimum(x, y),
        (X, Y),
    ),
    # 2.75 and -2.75 tell truncation from rounding and from flooring.
    Case(
        "cast",
        lambda x: mb.mul(x=x, y=mb.cast(x=mb.cast(x=x, dtype="int32"), dtype=types.builtin_to_string(x.dtype))),
        lambda x: x * x.trunc(),
        (np.array([[2.75, -2.75, 0.5, -0.5]], np.float32),),
    ),
]


def direct_conv(
    x: Tensor,
    w: Tensor,
    pad: tuple[int, int, int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    groups: int,
) -> Tensor:
    """Convolution from its definition: pad (top, bottom, left, right), shift, multiply, add."""
    top, bottom, left, right = pad
    x = F.pad(x, (left, right, top, bottom))
    rows = (x.shape[2] - (w.shape[2] - 1) * dilations[0] - 1) // strides[0] + 1
    columns = (x.shape[3] - (w.shape[3] - 1) * dilations[1] - 1) // strides[1] + 1
    per_group = w.shape[0] // groups
    y = torch.zeros(x.shape[0], w.shape[0], rows, columns, dtype=x.dtype)
    for i, j in itertools.product(range(w.shape[2]), range(w.shape[3])):
        a, b = i * dilations[0], j * dilations[1]
        patch = x[
            :, :, a : a + (rows - 1) * strides[0] + 1 : strides[0], b : b + (columns - 1) * strides[1] + 1 : strides[1]
        ]
        for g in range(groups):
            out = slice(g * per_group, (g + 1) * per_group)
            channels = patch[:, g * w.shape[1] : (g + 1) * w.shape[1]]
            y[:, out] += torch.einsum("nchw,oc->nohw", channels, w[out, :, i, j])
    return y


IMAGE = normal(2, 4, 9, 11)


def convolution(
    label: str,
    weight: np.ndarray,
    pad: tuple[int, int, int, int],
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    groups: int = 1,
    pad_type: str = "custom",
) -> Case:
    def build(x: Any, w: Any, b: Any) -> Any:
        pads = {"pad": pad} if pad_type == "custom" else {}
        return mb.conv(
            x=x, weight=w, bias=b, strides=strides, dilations=dilations, groups=groups, pad_type=pad_type, **pads
        )

    def expected(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return direct_conv(x, w, pad, strides, dilations, groups) + b.reshape(-1, 1, 1)

    return Case("conv", build, expected, (IMAGE,), (weight, normal(weight.shape[0])), label=label)


PRODUCTS = [
    convolution("padded", normal(5, 4, 3, 3), (1, 2, 0, 1)),
    convolution("valid", normal(5, 4, 3, 2), (0, 0, 0, 0), pad_type="valid"),
    convolution("strided", normal(5, 4, 4, 3), (0, 0, 0, 0), strides=(4, 3)),
    convolution("dilated", normal(5, 4, 3, 3), (2, 2, 3, 3), dilations=(2, 3)),
    convolution("grouped", normal(6, 2, 3, 3), (1, 1, 1, 1), groups=2),
    convolution("depthwise", normal(4, 1, 3, 5), (1, 1, 2, 2), groups=4),
    convolution("pointwise", normal(7, 4, 1, 1), (0, 0, 0, 0)),
    # 9 rows, 2 steps, extent 4: 3 to pad; 11 columns, 3 steps, extent 2: 1 to pad. The odd one shows the side.
    convolution("same", normal(5, 4, 4, 2), (1, 2, 0, 1), strides=(2, 1), pad_type="same"),
    convolution("same dilated", normal(5, 4, 3, 2), (2, 2, 1, 2), dilations=(2, 3), pad_type="same"),
    convolution("same_lower", normal(5, 4, 4, 2), (2, 1, 1, 0), strides=(2, 1), pad_type="same_lower"),
    Case(
        "linear",
        lambda x, w, b: mb.linear(x=x, weight=w, bias=b),
        lambda x, w, b: (x.unsqueeze(-2) * w).sum(-1) + b,
        (normal(2, 5, 8),),
        (normal(3, 8), normal(3)),
    ),
    *(
        Case(
            "matmul",
            lambda x, y, a=a, b=b: mb.matmul(x=x, y=y, transpose_x=a, transpose_y=b),
            lambda x, y, a=a, b=b: torch.einsum(f"bh{'ki' if a else 'ik'},bh{'jk' if b else 'kj'}->bhij", x, y),
            (normal(2, 3, *((6, 4) if a else (4, 6))), normal(2, 3, *((5, 6) if b else (6, 5)))),
            label=f"{a:d}{b:d}",
        )
        for a, b in itertools.product((False, True), repeat=2)
    ),
]


def standardize(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True) + epsilon).sqrt()


NORMALISATION = [
    Case(
        "batch_norm",
        lambda x, m, v, g, b: mb.batch_norm(
            x=x, mean=m, variance=v, gamma=g, beta=b, epsilon=np.asarray(EPSILON, m.dtype)
        ),
        lambda x, m, v, g, b: torch.stack(
            [(x[:, c] - m[c]) / (v[c] + EPSILON).sqrt() * g[c] + b[c] for c in range(3)], dim=1
        ),
        (X,),
        (normal(3), positive(3), positive(3), normal(3)),
    ),
    Case(
        "instance_norm",
        lambda x, g, b: mb.instance_norm(x=x, gamma=g, beta=b, epsilon=np.asarray(EPSILON, g.dtype)),
        lambda x, g, b: standardize(x, (2, 3), EPSILON) * g.reshape(3, 1, 1) + b.reshape(3, 1, 1),
        (X,),
        (positive(3), normal(3)),
    ),
    Case(
        "layer_norm",
        lambda x, g, b: mb.layer_norm(x=x, axes=[-1], gamma=g, beta=b, epsilon=np.asarray(EPSILON, g.dtype)),
        lambda x, g, b: standardize(x, (-1,), EPSILON) * g + b,
        (X,),
        (positive(8), normal(8)),
        label="last",
    ),
    Case(
        "layer_norm",
        lambda x, g, b: mb.layer_norm(x=x, axes=[1], gamma=g, beta=b, epsilon=np.asarray(EPSILON, g.dtype)),
        lambda x, g, b: standardize(x, (1,), EPSILON) * g.reshape(3, 1, 1) + b.reshape(3, 1, 1),
        (X,),
        (positive(3), normal(3)),
        label="channels",
    ),
    simple("softmax", lambda x: torch.exp(x) / torch.exp(x).sum(-1, keepdim=True), X, axis=-1, label="last"),
    simple("softmax", lambda x: torch.exp(x) / torch.exp(x).sum(1, keepdim=True), X, axis=1, label="channels"),
]

REDUCTIONS = [
    simple("reduce_mean", lambda x: x.sum((2, 3), keepdim=True) / 48, X, axes=[2, 3], keep_dims=True),
    simple("reduce_sum", lambda x: torch.einsum("nchw->nhw", x), X, axes=[1], keep_dims=False),
    simple("reduce_max", lambda x: x.sort(-1).values[..., -1:], X, axes=[-1], keep_dims=True),
    simple("reduce_min", lambda x: x.sort(1).values[:, 0], X, axes=[1], keep_dims=False),
    simple(
        "reduce_l2_norm",
        lambda x: torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True),
        X,
        axes=[2, 3],
        keep_dims=True,
    ),
    Case(
        "reduce_argmax",
        lambda x: mb.cast(x=mb.reduce_argmax(x=x, axis=1, keep_dims=False), dtype=types.builtin_to_string(x.dtype)),
        lambda x: (x >= x.amax(1, keepdim=True)).double().mul(torch.arange(3.0).reshape(1, 3, 1, 1)).sum(1),
        (X,),
    ),
]


def windows(
    x: Tensor, kernel: tuple[int, int], strides: tuple[int, int], pad: tuple[int, int, int, int], fill: float
) -> Tensor:
    """(N, C, rows, columns, KH * KW)."""
    padded = F.pad(x, (pad[2], pad[3], pad[0], pad[1]), value=fill)
    return padded.unfold(2, kernel[0], strides[0]).unfold(3, kernel[1], strides[1]).flatten(4)


POOLS = [
    simple(
        "max_pool",
        lambda x: windows(x, (3, 2), (2, 3), (1, 1, 0, 1), -math.inf).amax(-1),
        X - 5,
        kernel_sizes=[3, 2],
        strides=[2, 3],
        pad_type="custom",
        pad=[1, 1, 0, 1],
    ),
    simple(
        "avg_pool",
        lambda x: windows(x, (3, 2), (2, 3), (1, 1, 0, 1), 0.0).mean(-1),
        X,
        kernel_sizes=[3, 2],
        strides=[2, 3],
        pad_type="custom",
        pad=[1, 1, 0, 1],
        exclude_padding_from_average=False,
        label="padding counts",
    ),
    simple(
        "avg_pool",
        lambda x: windows(x, (3, 2), (2, 3), (1, 1, 0, 1), math.nan).nanmean(-1),
        X,
        kernel_sizes=[3, 2],
        strides=[2, 3],
        pad_type="custom",
        pad=[1, 1, 0, 1],
        exclude_padding_from_average=True,
        label="padding left out",
    ),
    simple(
        "avg_pool",
        lambda x: windows(x, (1, 1), (2, 2), (0, 0, 0, 0), 0.0).mean(-1),
        X,
        kernel_sizes=[1, 1],
        strides=[2, 2],
        pad_type="valid",
        label="valid",
    ),
]

SHAPES = [
    simple("reshape", lambda x: x.flatten(1, 2), X, shape=[2, 18, -1]),
    simple("transpose", lambda x: torch.einsum("nchw->nhwc", x), X, perm=[0, 2, 3, 1]),
    simple("expand_dims", lambda x: x[:, None, :, None], normal(2, 3), axes=[1, 3]),
    simple("squeeze", lambda x: x[:, 0, :, :, 0], normal(2, 1, 3, 1, 1), axes=[1, 4], label="axes"),
    simple("squeeze", lambda x: x[:, 0, :, 0], normal(2, 1, 3, 1), label="all"),
    Case("concat", lambda x, y: mb.concat(values=[y, x], axis=1), lambda x, y: torch.cat([y, x], 1), (X, Y[:, :2])),
    Case("stack", lambda x, y: mb.stack(values=[y, x], axis=2), lambda x, y: torch.stack([y, x], 2), (X, Y)),
    Case(
        "split",
        lambda x: mb.concat(values=list(mb.split(x=x, split_sizes=[1, 5, 2], axis=3))[::-1], axis=3),
        lambda x: torch.cat([x[..., 6:], x[..., 1:6], x[..., :1]], 3),
        (X,),
        label="sizes",
    ),
    Case(
        "split",
        lambda x: mb.sub(x=(parts := mb.split(x=x, num_splits=2, axis=2))[1], y=parts[0]),
        lambda x: x[:, :, 3:] - x[:, :, :3],
        (X,),
        label="equal",
    ),
    simple(
        "slice_by_index",
        lambda x: x[:, 1:3, 2::2, 7],
        X,
        begin=[9, 1, 2, 7],
        end=[9, 3, 9, 0],
        stride=[1, 1, 2, 1],
        begin_mask=[True, False, False, False],
        end_mask=[True, False, True, False],
        squeeze_mask=[False, False, False, True],
        label="masks",
    ),
    simple("slice_by_index", lambda x: x[..., 5:7], X, begin=[0, 0, 0, -3], end=[2, 3, 6, -1], label="negative"),
    Case(
        "pad",
        lambda x, v: mb.pad(x=x, pad=[0, 1, 2, 3], mode="constant", constant_val=v.reshape(())[()]),
        lambda x, v: torch.nn.ConstantPad2d((2, 3, 0, 1), float(v))(x),
        (X,),
        (np.array([1.5], np.float32),),
        label="constant",
    ),
    simple(
        "pad",
        lambda x: x[..., [2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 6]],
        X,
        pad=[0, 0, 0, 0, 0, 0, 2, 1],
        mode="reflect",
        label="reflect",
    ),
    simple(
        "pad",
        lambda x: x[..., [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7]],
        X,
        pad=[0, 0, 0, 0, 0, 0, 2, 1],
        mode="replicate",
        label="replicate",
    ),
    Case(
        "gather",
        lambda x: mb.gather(x=x, indices=np.array([[2, 0], [1, 1]], np.int32), axis=1),
        lambda x: torch.stack([x[:, [2, 0]], x[:, [1, 1]]], 1),
        (X,),
        label="iOS16",
    ),
    Case(
        "gather",
        lambda x: mb.gather(x=x, indices=np.array([2, 0], np.uint16), axis=1, validate_indices=False),
        lambda x: x[:, [2, 0]],
        (X,),
        opset=ct.target.iOS17,
        label="iOS17",
    ),
    simple("tile", lambda x: torch.cat([torch.cat([x, x, x], 3)] * 2, 1), X, reps=[1, 2, 1, 3]),
]


def sample(x: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Separable linear interpolation at fractional positions, with NumPy's own interp."""

    def along_last(a: np.ndarray, grid: np.ndarray) -> np.ndarray:
        return np.apply_along_axis(lambda line: np.interp(grid, np.arange(line.size), line), -1, a)

    a = along_last(along_last(x.numpy(), columns).swapaxes(-1, -2), rows).swapaxes(-1, -2)
    return torch.from_numpy(np.ascontiguousarray(a))


def resize(mode: str, rows: np.ndarray, columns: np.ndarray) -> Case:
    """(6, 8) to (9, 4) at positions worked out by hand from the mode's definition."""
    return simple(
        "resize_bilinear",
        lambda x: sample(x, rows, columns),
        X,
        target_size_height=9,
        target_size_width=4,
        sampling_mode=mode,
        label=mode,
    )


RESIZING = [
    resize("STRICT_ALIGN_CORNERS", np.linspace(0, 5, 9), np.linspace(0, 7, 4)),
    resize("ALIGN_CORNERS", np.linspace(0, 5, 9), np.linspace(0, 7, 4)),
    resize("DEFAULT", np.minimum(np.arange(9) * 2 / 3, 5), np.arange(4) * 2.0),
    resize("OFFSET_CORNERS", (np.arange(9) + 0.5) * 5 / 9, (np.arange(4) + 0.5) * 7 / 4),
    resize("UNALIGN_CORNERS", np.clip((np.arange(9) + 0.5) * 2 / 3 - 0.5, 0, 5), np.arange(4) * 2 + 0.5),
    simple(
        "upsample_bilinear",
        lambda x: F.interpolate(x, scale_factor=(2, 3), mode="bilinear", align_corners=False),
        X,
        scale_factor_height=2,
        scale_factor_width=3,
        align_corners=False,
        label="half pixel",
    ),
    simple(
        "upsample_bilinear",
        lambda x: F.interpolate(x, size=(12, 24), mode="bilinear", align_corners=True),
        X,
        scale_factor_height=2.0,
        scale_factor_width=3.0,
        align_corners=True,
        label="corners",
    ),
    simple(
        "upsample_bilinear",
        lambda x: sample(x, np.minimum(np.arange(12) / 2, 5), np.minimum(np.arange(16) / 2, 7)),
        X,
        scale_factor_height=2,
        scale_factor_width=2,
        align_corners=False,
        half_pixel_centers=False,
        label="legacy",
    ),
    simple(
        "upsample_nearest_neighbor",
        lambda x: torch.kron(x, torch.ones(2, 3, dtype=x.dtype)),
        X,
        scale_factor_height=2,
        scale_factor_width=3,
    ),
]

STEPS = np.array([[0.5, 1.5, -2.5, 100.0], [1.0, -1.0, 64.0, -64.0]], np.float32)

QUANTISATION = [
    Case(
        "quantize",
        lambda x, s: mb.dequantize(input=mb.quantize(input=x, scale=s, output_dtype="int8", axis=0), scale=s, axis=0),
        # 0.5 and 1.5 steps round to even; 100 and 128 steps saturate at 127.
        lambda x, s: torch.tensor([[0.0, 2.0, -2.0, 100.0], [1.0, -1.0, 63.5, -64.0]], dtype=torch.float64),
        (STEPS,),
        (np.array([1.0, 0.5], np.float32),),
        opset=ct.target.iOS17,
    ),
    Case(
        "dequantize",
        lambda x, s: mb.dequantize(
            input=mb.quantize(input=x, scale=s[0], zero_point=np.uint8(3), output_dtype="uint8"),
            scale=s[0],
            zero_point=np.uint8(3),
        ),
        # Below -3 steps saturates at 0, which stands for -3.
        lambda x, s: torch.tensor([[0.0, 2.0, -2.0, 100.0], [1.0, -1.0, 64.0, -3.0]], dtype=torch.float64),
        (STEPS,),
        (np.array([1.0], np.float32),),
        opset=ct.target.iOS17,
    ),
]

CASES = UNARY + BINARY + DECISIONS + PRODUCTS + NORMALISATION + REDUCTIONS + POOLS + SHAPES + RESIZING + QUANTISATION


def check(got: np.ndarray, expected: Tensor, dtype: type[np.floating]) -> None:
    """One rounding to the type, and no more: half a unit in the last place, plus float32's own error inside."""
    assert got.dtype == dtype
    reference = expected.double().numpy()
    assert got.shape == reference.shape
    unit = np.spacing(np.abs(reference).astype(dtype)).astype(np.float64)
    slack = 1e-5 * np.maximum(np.abs(reference), 1.0) if dtype is np.float32 else 0.51 * unit + 2e-6
    error = np.abs(got.astype(np.float64) - reference)
    assert (error <= slack).all(), (
        f"largest error {error.max():.3g}, {(error / unit).max():.3g} units in the last place"
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operation(case: Case, dtype: type[np.floating], tmp_path: Path) -> None:
    inputs = [a.astype(dtype) for a in case.inputs]
    constants = [a.astype(dtype) for a in case.constants]
    package = mil_files.save(tmp_path / "m.mlpackage", inputs, lambda *x: case.build(*x, *constants), case.opset)
    program = Program(package)
    assert case.operation in program.counts
    (got,) = program({f"x{i}": a for i, a in enumerate(inputs)}).values()
    exact = [torch.from_numpy(a.astype(np.float64)) for a in (*inputs, *constants)]
    check(got, case.expected(*exact), dtype)


OUTSIDE = {
    "batch_dims is not implemented": lambda x: mb.gather(x=x, indices=np.zeros((2, 1), np.int32), axis=1, batch_dims=1),
    "an index is outside axis 1": lambda x: mb.gather(x=x, indices=np.array([-1], np.int32), axis=1),
    "ceil_mode is not implemented": lambda x: mb.max_pool(
        x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid", ceil_mode=True
    ),
    "interleave is not implemented": lambda x: mb.concat(values=[x, x], axis=1, interleave=True),
    "stride -1 is not implemented": lambda x: mb.slice_by_index(
        x=x, begin=[0, 0, 0, 7], end=[2, 3, 6, 0], stride=[1, 1, 1, -1]
    ),
    "factors 1.5 and 2.0 are not whole": lambda x: mb.upsample_nearest_neighbor(
        x=x, scale_factor_height=1.5, scale_factor_width=2.0
    ),
}


@pytest.mark.parametrize("message", OUTSIDE)
def test_an_argument_that_is_not_implemented_is_refused(message: str, tmp_path: Path) -> None:
    program = Program(mil_files.save(tmp_path / "m.mlpackage", [X], OUTSIDE[message], ct.target.iOS17))
    with pytest.raises(MilError, match=message):
        program({"x0": X})


def test_every_operation_is_tested() -> None:
    assert {case.operation for case in CASES} | {weight.operation for weight in WEIGHTS} == set(OPERATIONS)
