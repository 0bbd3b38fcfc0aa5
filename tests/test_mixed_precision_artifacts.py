"""Mixed precision in artifacts: networks that fail in int8, through the real converters."""

from __future__ import annotations

import copy
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Sqnr
from edge import processes, targets, worker
from edge.backends.executorch_quantize import observe, quantise, with_observers
from edge.backends.executorch_simulation import PreparedSimulation
from edge.formats import FORMATS
from edge.parity.gates import judge
from edge.parity.metrics import measure, sqnr_db
from edge.quantisation.search import LARGEST_FLOAT_SHARE
from edge.records import EmitJob, EmittedFile, RunJob
from edge.toolchains import environments

pytestmark = pytest.mark.slow

GATE_DB = 20.0
SIZE = 32
LIMIT_S = 600


class Normalised(nn.Module):
    """A small residual network with LayerNorms, as in ConvNeXt. One channel may be far larger than all others.

    Args:
        outlier: how many times; the head does not read that channel directly, only the norms see it.
        everywhere: whether the other layers have such channels, too.
    """

    def __init__(self, outlier: float, everywhere: bool = False, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, 4)
        self.depthwise = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, groups=channels) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.wide = nn.ModuleList(nn.Linear(channels, 4 * channels) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(4 * channels, channels) for _ in range(2))
        self.head = nn.Linear(channels, 10)
        with torch.no_grad():
            self.stem.weight[0] *= outlier
            self.head.weight[:, 0] = 0
            if everywhere:
                for wide, narrow in zip(self.wide, self.narrow, strict=True):
                    wide.weight[0] *= outlier
                    narrow.weight[0] *= outlier
                    narrow.weight[:, 0] = 0

    def forward(self, image: Tensor) -> Tensor:
        """Logits of (N, 3, H, W)."""
        x = self.stem(image)
        for depthwise, norm, wide, narrow in zip(self.depthwise, self.norms, self.wide, self.narrow, strict=True):
            y = norm(depthwise(x).permute(0, 2, 3, 1))
            x = x + narrow(nn.functional.gelu(wide(y))).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


def octaves(count: int) -> np.ndarray:
    """Images (N, 3, H, W) of noise with as much of it in every octave, as in photographs: blur leaves some of it."""
    generator = np.random.default_rng(0)
    sides = (4, 8, 16, 32)
    noise = [generator.standard_normal((count, 3, side, side)) / len(sides) ** 0.5 for side in sides]
    pixels = [np.ones((SIZE // side, SIZE // side)) for side in sides]
    return sum(map(np.kron, noise, pixels)).astype(np.float32)


def emitted(network: nn.Module, format: str, folder: Path) -> tuple[EmittedFile, np.ndarray, np.ndarray]:
    """A network's int8 file that ships, what it gives for the check samples, and the network's float64 answers."""
    images = octaves(12)
    np.savez(folder / "calibration.npz", image=images)
    np.savez(folder / "check.npz", image=images[8:])
    program = torch.export.export(network.eval(), (torch.from_numpy(images[:1]),))
    torch.export.save(program, folder / "program.pt2")
    converter = FORMATS[format].default
    environments.ensure(converter.environment, print)
    job = EmitJob(
        backend=converter.backend,
        model="net",
        program=folder / "program.pt2",
        inputs=("image",),
        outputs=("logits",),
        precisions=("int8",),
        calibration=folder / "calibration.npz",
        check_inputs=folder / "check.npz",
        target=targets.load("cortex-a72").model_dump(mode="json"),
        folder=folder / "files",
    )
    job.folder.mkdir()
    if converter.environment == "base":
        backend = importlib.import_module(converter.backend)
        files = backend.emit(job, backend.prepare(job), "int8")
    else:
        emission = processes.emit(job, converter.environment, LIMIT_S)["int8"]
        assert emission.status == "emitted", emission.reason
        files = emission.files
    file = files[0]
    run = RunJob(file.runtime, job.folder / file.file, file.inputs, file.outputs, job.check_inputs, folder / "npz")
    with torch.no_grad():
        oracle = network.double()(torch.from_numpy(images[8:]).double()).numpy()
    return file, worker.run_all(run)[0]["logits"], oracle


@pytest.mark.parametrize("format", ["executorch", "tflite"])
def test_a_network_with_an_outlier_channel_reaches_its_gate(tmp_path: Path, sqnr: Sqnr, format: str):
    torch.manual_seed(0)
    file, logits, oracle = emitted(Normalised(60), format, tmp_path)
    mixed = file.notes["mixed_precision"]
    assert mixed["before_db"] < GATE_DB < mixed["after_db"]
    assert sqnr(oracle, logits) >= GATE_DB
    assert 0 < len(mixed["kept"]) < mixed["layers"] / 2
    assert mixed["float_share"] <= LARGEST_FLOAT_SHARE
    assert mixed["bytes"][0] < mixed["bytes"][1]
    linear = [kept for kept in mixed["kept"] if kept["kind"] in ("FULLY_CONNECTED", "linear.default")]
    assert len(linear) <= 1, "the head may be, whose input has the outlier; the four in the blocks are not to blame"
    assert file.notes["float_operators"]


def test_a_network_with_outliers_everywhere_misses_its_gate_and_says_why(tmp_path: Path):
    """The twin: nothing is wrong with the pipeline, and no artifact that calls itself int8 can hold this network."""
    torch.manual_seed(0)
    file, logits, oracle = emitted(Normalised(60, everywhere=True), "executorch", tmp_path)
    measured = measure({"logits": oracle}, {"logits": oracle.astype(np.float32)}, {"logits": logits}, 0.0)
    reason = judge(measured, None, file.notes, targets.load("cortex-a72").gates["int8"])
    assert "at least 20 expected" in reason
    needed = re.search(r"at least (\d+)% of the multiply-adds in float, and 25% is the most that may stay", reason)
    assert needed and int(needed[1]) > 25
    assert "kept" not in file.notes["mixed_precision"]


def test_the_simulation_is_bit_by_bit_what_pt2e_makes_of_a_choice():
    torch.manual_seed(0)
    samples = [(torch.randn(1, 3, SIZE, SIZE),) for _ in range(3)]
    program = torch.export.export(Normalised(60).eval(), samples[0])
    network = program.module(check_guards=False)
    rule = "histogram"
    simulation = PreparedSimulation(observe(with_observers(copy.deepcopy(program), rule), rule, samples), samples, {})
    names = [layer.name for layer in simulation.layers]
    kept = frozenset(names[::2])
    converted, _ = quantise(observe(with_observers(copy.deepcopy(program), rule, kept), rule, samples), samples[0])
    module = converted.module(check_guards=False)
    with torch.no_grad():
        found = [sqnr_db(network(*x).numpy(), module(*x).numpy())[0] for x in samples]
    assert list(simulation.sqnr_db(kept, range(len(samples)))) == pytest.approx(found, abs=1e-9)
