"""A user's own folder of calibration images: which files count, and what they give."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from edge.calibration.preprocessing import Preprocessing

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ARRAY_SUFFIX = ".npy"

MINIMUM, MAXIMUM = 8, 256
"""Samples in a set: fewer say too little about an activation's range, more add nothing to it."""


@dataclass(frozen=True)
class Listing:
    """What lies in a folder.

    Attributes:
        files: those to open, by their name below the folder, in the order of the names; at most ``MAXIMUM``.
        others: names of files that are neither an image nor an array.
        left_out: how many more files could have been opened.
    """

    files: dict[str, Path]
    others: tuple[str, ...]
    left_out: int


@dataclass(frozen=True)
class Samples:
    """What a folder's files give: see ``CalibrationSet`` for the fields."""

    samples: np.ndarray
    used: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]
    left_out: int


def list_files(folder: Path) -> Listing:
    """List a folder and its sub-folders. Names that begin with a dot are passed over.

    Of more than ``MAXIMUM`` files it takes some at even distances, so that every class of a sorted data set has its
    share.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(
            f"the calibration folder {folder} {what}",
            stage="define",
            next_step=f"give a folder with at least {MINIMUM} images, or none to use the photographs that are built in",
        )
    found: dict[str, Path] = {}
    others = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            label = os.fsencode(path.relative_to(folder).as_posix()).decode(errors="replace")
            if name.startswith("."):
                continue
            if path.suffix.lower() in (*IMAGE_SUFFIXES, ARRAY_SUFFIX) and path.is_file():
                found[label] = path
            else:
                others.append(label)
    labels = sorted(found)
    count = min(len(labels), MAXIMUM)
    chosen = [labels[index * len(labels) // count] for index in range(count)]
    return Listing({label: found[label] for label in chosen}, tuple(sorted(others)), len(labels) - count)


def read_samples(folder: Path, preprocessing: Preprocessing) -> Samples:
    """Decode and preprocess a folder's images; read its .npy arrays of samples that are preprocessed already.

    Raises:
        InputError: there is no such folder, or it gives fewer than ``MINIMUM`` samples.
    """
    import numpy as np

    from edge.calibration.decoding import UnusableError, read_array, read_image

    listing = list_files(folder)
    samples: list[np.ndarray] = []
    used: list[str] = []
    rejected = [(label, "neither an image nor a .npy array") for label in listing.others]
    for label, path in listing.files.items():
        try:
            if path.suffix.lower() == ARRAY_SUFFIX:
                new = list(read_array(path, preprocessing))
            else:
                new = [preprocessing(read_image(path))]
            if len(samples) + len(new) > MAXIMUM:
                raise UnusableError(f"{len(new)} samples, with which the set would pass {MAXIMUM}")
        except UnusableError as reason:
            rejected.append((label, str(reason)))
        else:
            samples += new
            used.append(label)
    if len(samples) < MINIMUM:
        raise InputError(
            f"the calibration folder {folder} gives {len(samples)} samples, at least {MINIMUM} are needed"
            f"{_first_reasons(rejected)}",
            stage="define",
            next_step="add photographs like those the network will see: JPEG, PNG, BMP, WebP or TIFF",
        )
    return Samples(np.stack(samples), tuple(used), tuple(rejected), listing.left_out)


def _first_reasons(rejected: list[tuple[str, str]], shown: int = 5) -> str:
    if not rejected:
        return ""
    more = f" and {len(rejected) - shown} more" if len(rejected) > shown else ""
    return "; rejected: " + "; ".join(f"{label} ({reason})" for label, reason in rejected[:shown]) + more
