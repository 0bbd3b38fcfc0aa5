"""A network that float16 loses keeps the operations to blame in float32, and no others, through the real converter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools as ct
import mil_files
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from torch import Tensor, nn

from conftest import Sqnr
from edge import targets
from edge.backends import coreml, coreml_package
from edge.backends.coreml_half import HalfSimulation
from edge.quantisation.search import LARGEST_FLOAT_SHARE
from edge.records import EmitJob, EmittedFile
from edge.runtimes.mil import Program

GATE_DB = 50.0
SIZE = 32


class OnePassVariance(nn.Module):
    """A norm whose variance is the mean square less the squared mean: where the mean is large, little of it is left.

    Args:
        offset: of the values before the norm.
    """

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.widen = nn.Conv2d(8, 32, 3, padding=1)
        self.mix = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)
        with torch.no_grad():
            self.stem.bias.fill_(offset)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of (N, 3, H, W)."""
        x = self.stem(image)
        mean = x.mean((2, 3), keepdim=True)
        variance = (x * x).mean((2, 3), keepdim=True) - mean * mean
        x = (x - mean) * (variance + 1e-3).rsqrt()
        return self.head(torch.relu(self.mix(torch.relu(self.widen(x)))).mean((2, 3)))


class Half:
    """A network in float16, emitted and run."""

    def __init__(self, offset: float, folder: Path) -> None:
        torch.manual_seed(0)
        network = OnePassVariance(offset).eval()
        images = torch.randn(8, 3, SIZE, SIZE)
        np.savez(folder / "images.npz", image=images.numpy())
        torch.export.save(torch.export.export(network, (images[:1],)), folder / "program.pt2")
        self.job = EmitJob(
            backend="edge.backends.coreml",
            model="net",
            program=folder / "program.pt2",
            inputs=("image",),
            outputs=("logits",),
            precisions=("fp16",),
            calibration=folder / "images.npz",
            check_inputs=folder / "images.npz",
            target=targets.load("iphone-12").model_dump(mode="json"),
            folder=folder / "files",
        )
        self.job.folder.mkdir()
        self.images = images.numpy()
        with torch.no_grad():
            self.oracle = network.double()(images.double()).numpy()

    def emit(self) -> EmittedFile:
        (file,) = coreml.emit(self.job, coreml.prepare(self.job), "fp16")
        return file

    def save(self, precision: Any, name: str) -> Program:
        """A package by the converter alone, read back."""
        path = self.job.folder / name
        coreml_package.save(coreml._convert(self.job, coreml.prepare(self.job), precision), path)
        return Program(path)

    def run(self, program: Program) -> np.ndarray:
        return np.concatenate([program({"image": image[None]})["logits"] for image in self.images])


def test_a_network_that_float16_loses_reaches_its_gate(tmp_path: Path, sqnr: Sqnr) -> None:
    half = Half(6, tmp_path)
    file = half.emit()
    program = Program(half.job.folder / file.file)
    mixed = file.notes["mixed_precision"]
    assert mixed["before_db"] < GATE_DB < mixed["after_db"]
    assert sqnr(half.oracle, half.run(program)) >= GATE_DB
    assert 0 < len(mixed["kept"]) < mixed["layers"] / 2
    assert mixed["float_share"] <= LARGEST_FLOAT_SHARE
    assert mixed["bytes"][0] < mixed["bytes"][1]
    assert {port.dtype for port in (*file.inputs, *file.outputs)} == {"float16"}
    stored = {tuple(v.shape): v.dtype for v in program.constants.values() if isinstance(v, Tensor) and v.ndim == 4}
    assert {"reduce_mean", "mul"} & {kept["kind"] for kept in mixed["kept"]}, "the mean square is to blame"
    assert stored[(32, 32, 3, 3)] == torch.float16, "what comes after the norm is not"


def test_without_the_search_it_misses_its_gate(tmp_path: Path, sqnr: Sqnr) -> None:
    half = Half(6, tmp_path)
    assert sqnr(half.oracle, half.run(half.save(ct.precision.FLOAT16, "plain.mlpackage"))) < GATE_DB - 10


def test_nothing_is_kept_where_float16_is_good_enough(tmp_path: Path) -> None:
    half = Half(0, tmp_path)
    file = half.emit()
    half.save(ct.precision.FLOAT16, "plain.mlpackage")
    assert "mixed_precision" not in file.notes
    assert package_bytes(half.job.folder / file.file) == package_bytes(half.job.folder / "plain.mlpackage")


def package_bytes(package: Path) -> list[bytes]:
    return [(package / part).read_bytes() for part in (mil_files.MODEL, mil_files.WEIGHTS)]


@pytest.mark.parametrize("share", [0, 3, 1])
def test_the_simulation_is_what_the_converter_makes_of_a_choice(share: int, tmp_path: Path, sqnr: Sqnr) -> None:
    """No layer in float32, every third, all."""
    half = Half(6, tmp_path)
    exact = half.save(ct.precision.FLOAT32, "exact.mlpackage")
    simulation = HalfSimulation(exact, {"image": half.images})
    kept = frozenset(layer.name for layer in simulation.layers[::share]) if share else frozenset[str]()
    choice = ct.transform.FP16ComputePrecision(lambda o: simulation.layer_of(o.outputs[0].name) not in kept)
    converted = half.run(half.save(choice, "mixed.mlpackage"))
    found = [sqnr(e[None], c[None]) for e, c in zip(half.run(exact), converted, strict=True)]
    assert list(simulation.sqnr_db(kept, range(len(half.images)))) == pytest.approx(found, abs=1e-6)


def test_a_converter_that_rounds_what_was_to_stay_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = coreml._convert
    exact, half = ct.precision.FLOAT32, ct.precision.FLOAT16
    monkeypatch.setattr(
        coreml, "_convert", lambda job, p, precision: convert(job, p, exact if precision == exact else half)
    )
    with pytest.raises(RuntimeError, match="computes in float16 what was to stay in float32"):
        Half(6, tmp_path).emit()


def test_moves_are_no_layers_and_products_have_their_multiply_adds(tmp_path: Path) -> None:
    x = np.zeros((1, 4, 6), np.float32)

    def build(x: Any) -> Any:
        product = mb.matmul(x=mb.transpose(x=x, perm=[0, 2, 1], name="turned"), y=x, name="product")
        wide = mb.linear(x=product, weight=np.ones((5, 6), np.float32), bias=np.ones(5, np.float32), name="wide")
        return mb.matmul(x=wide, y=wide, transpose_x=True, name="gram")

    simulation = HalfSimulation(Program(mil_files.save(tmp_path / "m.mlpackage", [x], build)), {"x0": x})
    assert {layer.name: layer.multiply_adds for layer in simulation.layers} == {
        "product": 6 * 4 * 6,
        "wide": 6 * 6 * 5,
        "gram": 5 * 6 * 5,
    }
    assert simulation.layer_of("turned") == "x0"
