"""What a block of a shift-wise network is exported as: the same function without paths, norms and permutation.

Everything linear is folded. With s, t the scale and shift of a BatchNorm (i: of the three sums, none: of the block):

    s (Σ_i s_i sum_i(w, x) + t_i + x) + t  ->  one convolution with a cross-shaped kernel and a bias; w = Σ paths
    γ (s (W (y + β)) + t)                  ->  (γ s W) y + γ (s W β + t)

The cross has two forms that give the same function:

- "strips": two depthwise convolutions of all channels in their own order, 3 x K along the rows and K x 3 along the
  columns. The middle, the identity and the ghosts are taps of the first. Squeeze and excitation and the pointwise layer
  take the channels in this order, so nothing is permuted. An asymmetric strip gets taps of zero, 2 of 53 where K is 49:
  a convolution pads symmetrically, and an operator that pads before it moves the whole image. Filters that are zero
  vanish in the sums. Taps at the ends that are zero, or outside the image, are dropped where its size is known
  (``edge.lowering.trim_kernels``).
- "shifts": the small convolution, whose results are shifted and added up as defined, with the ghosts behind the rep
  channels. Filters that are zero are dropped, as far as all channels can spare one.

Strips are the default: TVM's artifact is faster with them, ExecuTorch does not run the shifts, and TFLite's conversion
of them is not always right.
``tests/test_shiftwise_forms.py`` measures it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.models.shift_add import offsets, spatial_sum
from edge.models.shiftwise_tables import SIDE

if TYPE_CHECKING:
    from edge.models.shiftwise import Block, ResponseNorm, ShiftwiseConv

Form = Literal["strips", "shifts"]


class Merged(nn.Module):
    """The block with everything folded that is constant; all of it with the channels first."""

    def __init__(self, block: Block, form: Form) -> None:
        super().__init__()
        conv, sums = block.shiftwise, _Sums.of(block.shiftwise, block.norm)
        self.cross: nn.Module
        if form == "strips":
            self.cross = Strips(conv, sums)
            order = _behind(conv).argsort()  # where the operator has each channel
        else:
            self.cross = Shifts(conv, sums)
            order = torch.arange(len(sums.bias))
        self.excitation = copy.deepcopy(block.excitation)
        down, up = block.excitation.down, block.excitation.up
        assert up.bias is not None
        self.excitation.down = _convolution(down.weight[:, order], down.bias)
        self.excitation.up = _convolution(up.weight[order], up.bias[order])
        self.expand = _convolution(block.expand.weight[:, order, None, None], block.expand.bias)
        self.activation = copy.deepcopy(block.activation)
        self.response_norm = RelativeResponse(block.response_norm)
        scale, shift = (block.layer_scale * values for values in _scale_and_shift(block.project_norm))
        weight = block.project.weight * scale[:, None]
        self.project = _convolution(weight[..., None, None], weight @ block.response_norm.shift + shift)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        y = self.expand(self.excitation(self.cross(x)))
        return x + self.project(self.response_norm(self.activation(y)))


class RelativeResponse(nn.Module):
    """Global response normalisation with the channels first, without its shift.

    √(Σ x²) / (mean √(Σ x²) + ε)  =  √(mean x²) / (mean √(mean x²) + ε / √(H W))

    A mean has the size of its values; a sum of squares over an image leaves float16.
    """

    def __init__(self, norm: ResponseNorm) -> None:
        super().__init__()
        self.epsilon = norm.epsilon
        self.scale = nn.Parameter(norm.scale.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        response = (x * x).mean((2, 3), keepdim=True).sqrt()
        relative = response / (response.mean(1, keepdim=True) + self.epsilon / (x.shape[2] * x.shape[3]) ** 0.5)
        return x * (self.scale * relative + 1)


class Strips(nn.Module):
    """The cross as two depthwise convolutions."""

    def __init__(self, conv: ShiftwiseConv, sums: _Sums) -> None:
        super().__init__()
        middle, order = conv.tables.kernel // 2, _behind(conv).argsort()
        across = _strip(sums.filters, conv.across) * sums.scales[0]
        across[:, :, middle - 1 : middle + 2] += sums.filters[conv.middle[0]].sum(0) * sums.scales[2]
        # The rows of the filters are beside each other along the columns.
        down = _strip(sums.filters.transpose(1, 2), conv.down) * sums.scales[1]
        reach = max(middle, across.shape[2] - 1 - middle)
        edges = (reach - middle, reach - (across.shape[2] - 1 - middle), 0, 0, 0, len(conv.ghosts))
        across, down = (functional.pad(strip, edges) for strip in (across, down))
        across[:, 1, reach] += sums.scale  # the identity, and all that the ghosts have
        self.across = _convolution(across[order, None], sums.bias[order], len(order), (1, reach))
        self.down = _convolution(down[order, None].transpose(2, 3), None, len(order), (reach, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.across(x) + self.down(x)


class Shifts(nn.Module):
    """The cross as small convolution, shifts and additions."""

    rep: Tensor
    ghosts: Tensor
    across: Tensor
    down: Tensor
    middle: Tensor

    def __init__(self, conv: ShiftwiseConv, sums: _Sums) -> None:
        super().__init__()
        self.tables = conv.tables
        count, rep = conv.tables.filters, len(conv.rep)
        filters = sums.filters.reshape(rep, count, SIDE, SIDE)
        alive = filters.flatten(2).any(2)
        # As many as the channel has that has the most, and one of zeros that stands for all that are dropped.
        kept = min(count, int(alive.sum(1).max()) + 1)
        order = (~alive).int().argsort(dim=1, stable=True)
        ordered = filters.gather(1, order[..., None, None].expand_as(filters))[:, :kept]
        self.small = _convolution(ordered.reshape(-1, 1, SIDE, SIDE), None, rep, (SIDE - 1, SIDE - 1))
        position = order.argsort(1).clamp(max=kept - 1) + torch.arange(rep)[:, None] * kept
        for name in ("across", "down", "middle"):
            self.register_buffer(name, position.flatten()[getattr(conv, name)])
        for name in ("rep", "ghosts"):
            self.register_buffer(name, getattr(conv, name))
        self.scales = nn.Parameter(sums.scales)
        self.scale = nn.Parameter(sums.scale[:, None, None])
        self.bias = nn.Parameter(sums.bias[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape, the ghosts behind the rep channels."""
        kept, size = x[:, self.rep], (x.shape[2], x.shape[3])
        y, shifts = self.small(kept), (*offsets(self.tables), [(1, 1)])
        filters = (self.across, self.down, self.middle)
        parts = (spatial_sum(y, which, size, moves) for which, moves in zip(filters, shifts, strict=True))
        total = reduce(torch.add, (scale * part for scale, part in zip(self.scales, parts, strict=True)))
        rep = len(self.rep)
        return torch.cat([total + self.scale[:rep] * kept, self.scale[rep:] * x[:, self.ghosts]], 1) + self.bias


@dataclass(frozen=True)
class _Sums:
    """The operator and the block's norm: scale · concat(Σ_i scales_i·sum_i(x) / scale + x, ghosts) + bias.

    Attributes:
        filters: (rep channels · n, 3, 3), of all paths.
        scales: (3, rep channels, 1, 1), of the sums along the rows, along the columns and in the middle.
        scale, bias: (C,), in the operator's order of channels.
    """

    filters: Tensor
    scales: Tensor
    scale: Tensor
    bias: Tensor

    @classmethod
    def of(cls, conv: ShiftwiseConv, norm: nn.BatchNorm2d) -> _Sums:
        filters = torch.stack([path.get_parameter("weight") for path in conv.paths]).sum(0).squeeze(1)
        scale, shift = _scale_and_shift(norm)
        rep, ghosts = len(conv.rep), len(conv.ghosts)
        parts = [_scale_and_shift(part) for part in (conv.norm_across, conv.norm_down, conv.norm_middle)]
        scales = torch.stack([part * scale[:rep] for part, _ in parts])[..., None, None]
        bias = shift + scale * functional.pad(torch.stack([part for _, part in parts]).sum(0), (0, ghosts))
        return cls(filters, scales, scale, bias)


def _behind(conv: ShiftwiseConv) -> Tensor:
    """The channels in the operator's order: the ghosts behind the rep channels."""
    return torch.cat([conv.rep, conv.ghosts])


def _strip(filters: Tensor, indexes: Tensor) -> Tensor:
    """The filters of each place side by side, those of one place added.

    Args:
        filters: (rep channels · n, 3, 3).
        indexes: (places, groups, rep channels).

    Returns:
        (rep channels, 3, 3 · places).
    """
    return filters[indexes].sum(1).permute(1, 2, 0, 3).flatten(2)


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """S and t, each (C,), of BatchNorm(x) = s·x + t."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _convolution(weight: Tensor, bias: Tensor | None, groups: int = 1, padding: tuple[int, int] = (0, 0)) -> nn.Conv2d:
    """A convolution with this weight (O, C / groups, rows, columns) and bias (O,)."""
    outputs, inputs, *size = weight.shape
    convolution = nn.Conv2d(
        inputs * groups,
        outputs,
        (size[0], size[1]),
        padding=padding,
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    convolution.weight = nn.Parameter(weight.contiguous())
    convolution.bias = None if bias is None else nn.Parameter(bias)
    return convolution
