"""What the tests share: one tiny FasterNet, exported, with its samples and its float64 answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from edge import processes, targets
from edge.models.fasternet import Config, FasterNet
from edge.records import EmitJob, RunJob

SIZE = 64


@dataclass(frozen=True)
class TinyNetwork:
    """A network small enough to export in seconds, as the files a worker gets."""

    program: Path
    calibration: Path
    check_inputs: Path
    oracle: dict[str, np.ndarray]

    def job(self, backend: str, folder: Path, *precisions: str, target: dict | None = None) -> EmitJob:
        folder.mkdir(parents=True, exist_ok=True)
        return EmitJob(
            backend=f"edge.backends.{backend}",
            model="tiny",
            program=self.program,
            inputs=("image",),
            outputs=("logits",),
            precisions=precisions,
            calibration=self.calibration,
            check_inputs=self.check_inputs,
            target=target or targets.load("cortex-a72").model_dump(mode="json"),
            folder=folder,
        )


def settle_batch_norm(network: torch.nn.Module, samples: torch.Tensor) -> None:
    """Give every BatchNorm a non-trivial affine and the samples' statistics."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
    with torch.no_grad():
        network.train()(samples)
    network.eval()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyNetwork:
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    network = FasterNet(Config(16, (1, 1, 2, 1), "gelu", head_width=64, classes=10))
    generator = np.random.default_rng(0)
    calibration = generator.standard_normal((8, 3, SIZE, SIZE)).astype(np.float32)
    check = generator.standard_normal((4, 3, SIZE, SIZE)).astype(np.float32)
    settle_batch_norm(network, torch.from_numpy(calibration))
    program = torch.export.export(network, (torch.from_numpy(check[:1]),))
    torch.export.save(program, folder / "program.pt2")
    np.savez(folder / "calibration.npz", image=calibration)
    np.savez(folder / "check.npz", image=check)
    with torch.no_grad():
        oracle = network.double()(torch.from_numpy(check).double()).numpy()
    return TinyNetwork(folder / "program.pt2", folder / "calibration.npz", folder / "check.npz", {"logits": oracle})


@pytest.fixture(scope="session")
def tiny_executorch(tiny: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> RunJob:
    """Its fp32 program for ExecuTorch, emitted; a test that runs it says where the results go."""
    job = tiny.job("executorch", tmp_path_factory.mktemp("tiny_executorch") / "out", "fp32")
    emission = processes.emit(job, "base", 120)["fp32"]
    assert emission.status == "emitted", emission.reason
    (file,) = (file for file in emission.files if file.runtime == "executorch")
    return RunJob(file.runtime, job.folder / file.file, file.inputs, file.outputs, tiny.check_inputs, Path())


Sqnr = Callable[[np.ndarray, np.ndarray], float]


@pytest.fixture(scope="session")
def sqnr() -> Sqnr:
    """Worst sample's signal-to-error ratio in dB."""

    def measure(reference: np.ndarray, got: np.ndarray) -> float:
        axes = tuple(range(1, reference.ndim))
        error = ((reference - got.astype(np.float64)) ** 2).sum(axes)
        return float(10 * np.log10((reference**2).sum(axes) / np.maximum(error, 1e-300)).min())

    return measure
