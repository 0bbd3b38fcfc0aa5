"""The samples a network is calibrated with and those it is checked with.

Without a folder of the user's, both are photographs that scikit-image and scikit-learn ship inside their packages: real
pictures, the same on every machine, no download. The two sets share no scene.

Importing this module, and ``digest``, need neither numpy nor an image library: they decide whether a run has anything
to do.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.calibration.folder import list_files, read_samples
from edge.errors import SetupError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from edge.calibration.preprocessing import Preprocessing

CALIBRATION = (
    "skimage/data/astronaut.png",
    "skimage/data/brick.png",
    "skimage/data/camera.png",
    "skimage/data/cell.png",
    "skimage/data/chelsea.png",
    "skimage/data/gravel.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/moon.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/motorcycle_right.png",
    "skimage/data/page.png",
    "skimage/data/retina.jpg",
    "sklearn/datasets/images/china.jpg",
)
"""Each is used twice, as it is and then mirrored, so that samples of one scene are neighbours.

The two motorcycles are one scene from two eyes, so they stay together.
"""

CHECK = (
    "skimage/data/clock_motion.png",
    "skimage/data/coffee.png",
    "skimage/data/coins.png",
    "skimage/data/grass.png",
    "skimage/data/ihc.png",
    "skimage/data/rocket.jpg",
    "skimage/data/text.png",
    "sklearn/datasets/images/flower.jpg",
)

RANDOM_CHECKS = 8


@dataclass(frozen=True)
class CalibrationSet:
    """Preprocessed samples and where they come from.

    Attributes:
        name: for the report.
        samples: (N, 3, H, W) float32.
        used: files that gave at least one sample, in order.
        rejected: files that gave none, each with the reason.
        left_out: how many files of a large folder were not opened.
        digest: as ``digest`` computes it.
    """

    name: str
    samples: np.ndarray
    used: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]
    left_out: int
    digest: str


def calibration_set(preprocessing: Preprocessing, folder: Path | None = None) -> CalibrationSet:
    """The samples to calibrate with.

    Args:
        preprocessing: how the network wants a photograph.
        folder: the user's own images (JPEG, PNG, BMP, WebP, TIFF) and .npy arrays of preprocessed samples, searched
            with its sub-folders; None for the photographs named above.

    Raises:
        InputError: the folder does not exist or gives too few samples.
        SetupError: the packages with the photographs are not installed.
    """
    import numpy as np

    if folder is not None:
        own = read_samples(folder, preprocessing)
        return CalibrationSet(folder.resolve().name, own.samples, own.used, own.rejected, own.left_out, digest(folder))
    plain = _read(CALIBRATION, preprocessing)
    samples = np.stack([plain, plain[..., ::-1]], axis=1).reshape(-1, *plain.shape[1:])
    name = "photographs of scikit-image and scikit-learn, as is and mirrored"
    return CalibrationSet(name, samples, CALIBRATION, (), 0, digest())


def check_samples(preprocessing: Preprocessing) -> np.ndarray:
    """The inputs every artifact is checked with: eight photographs, then eight random images.

    Returns:
        (16, 3, size, size) float32, the same on every machine.

    Raises:
        SetupError: the packages with the photographs are not installed.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    random = [preprocessing(_random_image(generator)) for _ in range(RANDOM_CHECKS)]
    return np.concatenate([_read(CHECK, preprocessing), np.stack(random)])


def digest(folder: Path | None = None) -> str:
    """SHA-256, in hex, over the names and bytes of the files that ``calibration_set`` opens, used or rejected.

    Raises:
        InputError: the folder does not exist.
        SetupError: the packages with the photographs are not installed.
    """
    files = list_files(folder).files if folder is not None else {name: _locate(name) for name in CALIBRATION}
    total = hashlib.sha256()
    for name, path in sorted(files.items()):
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            content = "unreadable"  # such a file is rejected with its reason when the set is read
        total.update(f"{content}  {name}\n".encode())
    return total.hexdigest()


def _random_image(generator: np.random.Generator, side: int = 256) -> Image:
    """Random colours with as much contrast at every scale, from half the image down to one pixel, as photographs have.

    Independent pixels alone would be no test: the first convolutions average them to grey.
    """
    import numpy as np
    from PIL.Image import Resampling, fromarray

    total = np.zeros((side, side, 3))
    cells = 2
    while cells <= side:
        grid = fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(grid.resize((side, side), Resampling.BICUBIC)) - 127.5
        cells *= 2
    return fromarray((127.5 + 127.5 * total / np.abs(total).max()).astype(np.uint8))


def _read(names: tuple[str, ...], preprocessing: Preprocessing) -> np.ndarray:
    import numpy as np

    from edge.calibration.decoding import read_image

    return np.stack([preprocessing(read_image(_locate(name))) for name in names])


def _locate(name: str) -> Path:
    """Where a package's file lies, found without importing the package."""
    package, _, inside = name.partition("/")
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(root, inside)).is_file():
            return path
    raise SetupError(
        f"the photograph {name} is not installed",
        stage="setup",
        next_step="install scikit-image and scikit-learn in the versions this project locks",
    )
