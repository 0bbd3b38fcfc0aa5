"""What the notes say of a .tflite file's operators."""

from __future__ import annotations

from pathlib import Path

import pytest
from tflite_files import chain

from edge.backends.tflite_file import quantisation_notes


@pytest.mark.parametrize(
    ("axes", "found"), [((3,), {"MEAN": 1}), ((-1,), {"MEAN": 1}), ((1, 2), {}), ((1, 2, 3), {"MEAN": 1})]
)
def test_a_mean_over_the_innermost_axis_depends_on_the_processor(
    tmp_path: Path, axes: tuple[int, ...], found: dict[str, int]
) -> None:
    """XNNPACK rounds it otherwise on Arm; one over positions, as pooling is, has the same bits everywhere."""
    file = tmp_path / "mean.tflite"
    file.write_bytes(chain((1, 7, 7, 16), ("MEAN", axes)))
    assert quantisation_notes(file)["processor_operators"] == found
