"""How a photograph becomes a network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to ``size / crop`` (bicubic), cut the middle, scale to [0, 1], normalise per channel.

    Attributes:
        size: side of the square input, in pixels.
        crop: share of the resized shorter side that the input covers.
        mean, std: per RGB channel, of values in [0, 1].
    """

    size: int
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image) -> np.ndarray:
        """An RGB image of any size to (3, size, size) float32."""
        from PIL.Image import Resampling

        shorter = round(self.size / self.crop)
        scale = shorter / min(image.size)
        width, height = (max(shorter, round(side * scale)) for side in image.size)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        square = image.resize((width, height), Resampling.BICUBIC).crop((left, top, left + self.size, top + self.size))
        pixels = np.asarray(square, dtype=np.float32) / 255
        normalised = (pixels - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))
