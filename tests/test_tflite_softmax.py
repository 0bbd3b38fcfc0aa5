"""A softmax is one operator in a TFLite file, and attention's int8 runs: taken apart, it divides by zero."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor, nn

from conftest import Sqnr, TinyNetwork
from edge import processes, worker
from edge.formats import FORMATS
from edge.records import RunJob
from edge.toolchains import environments

pytestmark = pytest.mark.slow

SIZE = 8
GATES = {"fp32": 100, "int8": 15}
LIMIT_S = 300


class Attention(nn.Module):
    """Of two heads over the positions of an image, sharp enough that some exponentials are nearly zero."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(3, 8, 1) for _ in range(3))

    def forward(self, image: Tensor) -> Tensor:
        query, key, value = (layer(image).reshape(1, 2, 4, -1) for layer in (self.query, self.key, self.value))
        weights = (4 * query.transpose(2, 3) @ key).softmax(-1)
        return (weights @ value.transpose(2, 3)).mean(2).flatten(1)


def test_attention_keeps_its_softmax_and_passes_in_int8(tiny: TinyNetwork, sqnr: Sqnr, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, images = Attention().eval(), torch.randn(8, 3, SIZE, SIZE)
    program, samples = tmp_path / "program.pt2", tmp_path / "samples.npz"
    torch.export.save(torch.export.export(network, (images[:1],)), program)
    np.savez(samples, image=images.numpy())
    chosen = FORMATS["tflite"].default
    environments.ensure(chosen.environment, print)
    job = tiny.job("tflite_litert", tmp_path / "files", *GATES)
    job = replace(job, program=program, calibration=samples, check_inputs=samples)
    emissions = processes.emit(job, environment=chosen.environment, limit_s=LIMIT_S)
    assert {p: e.reason for p, e in emissions.items()} == dict.fromkeys(GATES, "")
    with torch.no_grad():
        oracle = torch.cat([network.double()(image[None].double()) for image in images]).numpy()
    for precision, emission in emissions.items():
        (file,) = emission.files
        interpreter = Interpreter(model_path=str(job.folder / file.file))
        found = Counter(operator["op_name"] for operator in interpreter._get_ops_details())
        assert found["SOFTMAX"] == 1 and not {"EXP", "DIV"} & set(found)
        run = RunJob(file.runtime, job.folder / file.file, file.inputs, file.outputs, samples, tmp_path / "out.npz")
        assert sqnr(oracle, worker.run_all(run)[0]["logits"]) >= GATES[precision]
