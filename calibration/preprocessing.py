"""How a photograph becomes a network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
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
        """An RGB image of any size to (3, size, size) float32.

        Sizes and offsets are rounded as torchvision's ``Resize`` and ``CenterCrop`` do, with which accuracies are
        published.
        """
        import numpy as np
        from PIL.Image import Resampling

        shorter = int(self.size / self.crop)
        width, height = (
            shorter if side == min(image.size) else int(shorter * side / min(image.size)) for side in image.size
        )
        left, top = (round((side - self.size) / 2) for side in (width, height))
        square = image.resize((width, height), Resampling.BICUBIC).crop((left, top, left + self.size, top + self.size))
        pixels = np.asarray(square, dtype=np.float32) / 255
        normalised = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))
