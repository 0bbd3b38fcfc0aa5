"""Images out of focus: what sharp calibration images do not show of a network's ranges.

A network that divides by its own deviations (LayerNorm, GRN) reaches furthest where there are no edges. Ranges from the
smallest to the largest value that were seen of sharp images alone clip what a blurred one has beyond them, and a low
precision that is good enough for sharp images may still lose a blurred one.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

BLUR = 1 / 56
"""The deviation as a share of the image's height: 4 pixels of 224."""


def out_of_focus(images: Tensor) -> Tensor:
    """Images (N, C, H, W) blurred by about a Gaussian with a deviation of ``BLUR`` times H; anything else as it is."""
    if images.ndim != 4:
        return images
    reach = round(BLUR * images.shape[2])
    for _ in range(3):  # three boxes of width w have a deviation of about w / 2
        images = functional.avg_pool2d(images, 2 * reach + 1, 1, reach, count_include_pad=False)
    return images
