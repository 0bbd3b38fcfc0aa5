"""Convolutions that read slices and concatenations in place, so that a partial convolution copies nothing.

    conv(x[..., a:b], w)                      one kernel that reads x
    conv(concat(y, x[..., c:]), w)            one kernel that reads y and x

FasterNet's block is the second after the first: its partial convolution writes the few channels that it computes, and
the pointwise convolution after it takes those, and the others from where they always were.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import gcd

from tvm import relax, te, tirx, topi

from edge.kernels.gpu.blocks import JOINT

READ_IN_PLACE = ("relax.strided_slice", "relax.concat")
CHANNELS = 3


@dataclass(frozen=True)
class _Part:
    """Channels of a tensor (N, H, W, C): the first, and how many."""

    tensor: relax.Expr
    first: int
    count: int


def legalize_conv2d(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``relax.nn.conv2d`` in NHWC as a kernel, for ``relax.transform.LegalizeOps``.

    What it reads must still be operators where it is ``READ_IN_PLACE``.
    """
    parts = _parts(builder, call.args[0])
    attributes = call.attrs

    def convolve(*tensors: te.Tensor) -> te.Tensor:
        *sources, weights = tensors
        return topi.nn.conv(
            _join(sources, parts),
            weights,
            *(list(map(int, values)) for values in (attributes.strides, attributes.padding, attributes.dilation)),
            int(attributes.groups),
            data_layout=attributes.data_layout,
            kernel_layout=attributes.kernel_layout,
        )

    sources = [part.tensor for part in parts]
    return builder.call_te(convolve, *sources, call.args[1], primfunc_name_hint="conv2d")


def _parts(builder: relax.BlockBuilder, source: relax.Expr) -> list[_Part]:
    """Where a convolution's input channels lie."""
    producer = builder.lookup_binding(source) if isinstance(source, relax.Var) else None
    if isinstance(producer, relax.Call) and producer.op.name == "relax.concat" and producer.attrs.axis == CHANNELS:
        fields = producer.args[0]
        if isinstance(fields, relax.Var):
            fields = builder.lookup_binding(fields)
        if isinstance(fields, relax.Tuple):
            return [_part(builder, field) for field in fields.fields]
    return [_part(builder, source)]


def _part(builder: relax.BlockBuilder, source: relax.Expr) -> _Part:
    """A tensor, or some channels of another."""
    producer = builder.lookup_binding(source) if isinstance(source, relax.Var) else None
    count = int(source.ty.shape[CHANNELS])
    if isinstance(producer, relax.Call) and producer.op.name == "relax.strided_slice":
        axes, begin, _, strides = ([int(v.value) for v in argument.fields] for argument in producer.args[1:5])
        if axes == [CHANNELS] and strides == [1]:
            return _Part(producer.args[0], begin[0], count)
    return _Part(source, 0, count)


def _join(sources: list[te.Tensor], parts: list[_Part]) -> te.Tensor:
    """The parts side by side, as an expression that a schedule inlines; where they meet is noted for it."""
    if len(parts) == 1 and sources[0].shape[CHANNELS] == parts[0].count:
        return sources[0]
    edges = [0, *accumulate(part.count for part in parts)]
    height, width = sources[0].shape[1:CHANNELS]

    def channel(n: tirx.Var, y: tirx.Var, x: tirx.Var, c: tirx.Var) -> tirx.PrimExpr:
        *others, last = (
            source[n, y, x, c + (part.first - edge)] for source, part, edge in zip(sources, parts, edges, strict=False)
        )
        value = last
        for edge, other in reversed(list(zip(edges[1:], others, strict=False))):
            value = tirx.if_then_else(c < edge, other, value)
        return value

    shape = (1, height, width, edges[-1])
    return te.compute(shape, channel, name="joined", attrs={JOINT: _alignment(parts)})


def _alignment(parts: list[_Part]) -> int:
    """So many neighbouring channels always lie in one part, and begin at a multiple of it in memory."""
    whole = (int(part.tensor.ty.shape[CHANNELS]) for part in parts)
    return gcd(*(part.count for part in parts), *(part.first for part in parts), *whole)
