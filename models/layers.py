"""Layers that several families share."""

from __future__ import annotations

from torch import Tensor, nn


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of an NCHW tensor, each position on its own."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
