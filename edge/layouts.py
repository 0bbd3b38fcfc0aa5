"""Between the pipeline's layout, NCHW, and an artifact's own."""

from __future__ import annotations

import numpy as np

from edge.records import Port


def to_artifact(array: np.ndarray, port: Port) -> np.ndarray:
    """Samples (N, C, H, W) as the artifact's port takes them; what is no feature map stays as it is."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if port.layout == "NHWC" else array


def from_artifact(array: np.ndarray, port: Port) -> np.ndarray:
    """The inverse of ``to_artifact``."""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if port.layout == "NHWC" else array
