"""A file of calibration data, decoded in full, or the reason why it is of no use."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from edge.calibration.preprocessing import Preprocessing

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
"""Only these decoders see a file, whatever its name says."""

MIN_SIDE, MAX_ASPECT = 32, 16
"""Smaller or longer pictures (icons, strips) are not photographs, and a long strip would be resized to gigabytes."""


class UnusableError(Exception):
    """The file cannot be calibrated with; the message is a short reason."""


def read_image(path: Path) -> Image.Image:
    """Decode an image to 8-bit RGB, upright.

    Alpha is dropped, as training loaders do; palettes and CMYK become RGB, grey is repeated, 16-bit samples are scaled
    to 8.

    Raises:
        UnusableError: it is empty, truncated, of another format, or of samples whose range is not known.
    """
    if path.stat().st_size == 0:
        raise UnusableError("0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities in metadata say nothing about the pixels
            with Image.open(path, formats=FORMATS) as image:
                if min(image.size) < MIN_SIDE or max(image.size) > MAX_ASPECT * min(image.size):
                    raise UnusableError(f"{image.width}×{image.height} pixels, which no photograph has")
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except UnusableError:
        raise
    except UnidentifiedImageError:
        raise UnusableError(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Exception as error:  # decoders of damaged files raise whatever they meet
        raise UnusableError(f"does not decode: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnusableError("floating-point samples, whose range is not known")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise UnusableError("samples of more than 16 bits")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    return image.convert("RGB")


def read_array(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Read samples that are preprocessed already.

    Returns:
        (N, 3, size, size) float32.

    Raises:
        UnusableError: not such an array, NaN or infinity in it, or values that are not normalised.
    """
    wanted = (3, preprocessing.size, preprocessing.size)
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")  # shape and type first: nothing large is read in vain
    except Exception as error:
        raise UnusableError(f"not a plain .npy array: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise UnusableError(f"{getattr(array, 'dtype', 'an archive')}, not floating-point samples")
    if array.shape[-3:] != wanted or array.ndim not in (3, 4) or array.shape[0] == 0:
        layout = " (channels last: transpose it)" if array.shape[-1:] == (3,) else ""
        raise UnusableError(f"shape {array.shape}{layout}, not {wanted} or (N, {', '.join(map(str, wanted))})")
    samples = np.array(array, dtype=np.float32).reshape(-1, *wanted)
    if not np.isfinite(samples).all():
        raise UnusableError(f"{int((~np.isfinite(samples)).sum())} values are NaN or infinite")
    largest = max(max(m, 1 - m) / s for m, s in zip(preprocessing.mean, preprocessing.std, strict=True))
    if np.abs(samples).max() > 2 * largest:
        raise UnusableError(
            f"values up to {np.abs(samples).max():.4g}: not normalised (a photograph stays within {largest:.3g})"
        )
    return samples
