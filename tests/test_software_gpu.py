"""The GPU in software: what it runs holds the gates, what it does not run is named, and where it errs a form holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tflite_files import chain
from torch import Tensor, nn

from conftest import Sqnr, TinyNetwork
from edge import processes, targets
from edge.backends import tflite_file, tflite_ranks
from edge.devices import software_gpu
from edge.devices.software_gpu import SoftwareGpu
from edge.processes import Run
from edge.records import EmitJob, EmittedFile, Port, RunJob
from edge.toolchains import environments

pytestmark = pytest.mark.slow

GATES = {precision: gate.sqnr_db for precision, gate in targets.load("pixel-8").gates.items()}
ATTENTION_INT8_DB = 15


@pytest.fixture(scope="module")
def gpu() -> SoftwareGpu:
    device = SoftwareGpu()
    device.ready(print)
    return device


def emit(job: EmitJob) -> dict[str, EmittedFile]:
    environments.ensure("litert", print)
    emissions = processes.emit(job, "litert", 600)
    assert {precision: e.reason for precision, e in emissions.items()} == dict.fromkeys(job.precisions, "")
    return {precision: e.files[0] for precision, e in emissions.items()}


def run_job(file: EmittedFile, folder: Path, check_inputs: Path, results: Path) -> RunJob:
    return RunJob(file.runtime, folder / file.file, file.inputs, file.outputs, check_inputs, results)


class TestNetwork:
    """A whole network, as the pipeline emits it."""

    @pytest.fixture(scope="class")
    def files(self, tiny: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, EmittedFile]]:
        folder = tmp_path_factory.mktemp("gpu") / "files"
        calibration = folder.with_name("calibration.npz")
        images = [np.load(path)["image"] for path in (tiny.calibration, tiny.check_inputs)]
        np.savez(calibration, image=np.concatenate(images))
        return folder, emit(replace(tiny.job("tflite_litert", folder, *GATES), calibration=calibration))

    @pytest.mark.parametrize("precision", GATES)
    def test_holds_the_gate_with_the_same_bits_every_time(
        self,
        precision: str,
        gpu: SoftwareGpu,
        files: tuple[Path, dict[str, EmittedFile]],
        tiny: TinyNetwork,
        sqnr: Sqnr,
        tmp_path: Path,
    ) -> None:
        folder, emitted = files
        job = run_job(emitted[precision], folder, tiny.check_inputs, tmp_path / "results.npz")
        assert gpu.obstacle(emitted[precision]) == ""
        first, second = gpu.run(job), gpu.run(job)
        assert first.reason == ""
        assert first.outputs is not None and second.outputs is not None
        assert "SwiftShader" in first.conditions["GPU"]
        assert not first.remark
        assert sqnr(tiny.oracle["logits"], first.outputs["logits"]) >= GATES[precision]
        assert np.array_equal(first.outputs["logits"], second.outputs["logits"])

    def test_swapped_channels_miss_the_gate(
        self,
        gpu: SoftwareGpu,
        files: tuple[Path, dict[str, EmittedFile]],
        tiny: TinyNetwork,
        sqnr: Sqnr,
        tmp_path: Path,
    ) -> None:
        folder, emitted = files
        model = tflite_file.unpack((folder / emitted["fp32"].file).read_bytes())
        _, convolution, graph = next(o for o in tflite_file.operators(model) if o[0] == "CONV_2D")
        weight = graph.tensors[convolution.inputs[1]]
        buffer = model.buffers[weight.buffer]
        values = buffer.data.view(np.float32).reshape(weight.shape).copy()
        values[[0, 1]] = values[[1, 0]]
        buffer.data = values.reshape(-1).view(np.uint8)
        (tmp_path / emitted["fp32"].file).write_bytes(tflite_file.pack(model))
        run = gpu.run(run_job(emitted["fp32"], tmp_path, tiny.check_inputs, tmp_path / "results.npz"))
        assert run.outputs is not None
        assert sqnr(tiny.oracle["logits"], run.outputs["logits"]) < 40

    def test_a_file_that_is_cut_short_is_a_failed_run(
        self, gpu: SoftwareGpu, files: tuple[Path, dict[str, EmittedFile]], tiny: TinyNetwork, tmp_path: Path
    ) -> None:
        folder, emitted = files
        content = (folder / emitted["fp32"].file).read_bytes()
        (tmp_path / emitted["fp32"].file).write_bytes(content[: len(content) // 2])
        run = gpu.run(run_job(emitted["fp32"], tmp_path, tiny.check_inputs, tmp_path / "results.npz"))
        assert run.outputs is None
        assert run.reason

    def test_takes_tflite_files_with_float_inputs_only(self, files: tuple[Path, dict[str, EmittedFile]]) -> None:
        file = files[1]["fp32"]
        assert "TFLite" in SoftwareGpu().obstacle(replace(file, runtime="executorch"))
        odd = replace(file, inputs=tuple(replace(port, dtype="int8") for port in file.inputs))
        assert "image is int8" in SoftwareGpu().obstacle(odd)


RunFile = Callable[[bytes, np.ndarray], Run]


@pytest.fixture
def run_file(gpu: SoftwareGpu, tmp_path: Path) -> RunFile:
    """Run a file that takes ``x`` to ``y``, given as its content."""

    def run(content: bytes, x: np.ndarray) -> Run:
        file = tmp_path / "file.tflite"
        file.write_bytes(content)
        np.savez(tmp_path / "check.npz", x=x[None])
        (y,) = (graph.tensors[graph.outputs[0]] for graph in tflite_file.unpack(content).subgraphs)
        ports = Port("x", x.shape, "", "x"), Port("y", tuple(map(int, y.shape)), "", "y")
        job = RunJob("litert", file, ports[:1], ports[1:], tmp_path / "check.npz", tmp_path / "results.npz")
        return gpu.run(job)

    return run


class TestAcceleration:
    """A file that falls back to the CPU does not look like a GPU check."""

    RANK_5 = (1, 2, 2, 4, 4)

    def test_what_the_gpu_cannot_take_is_listed(self, run_file: RunFile) -> None:
        constant = np.arange(64).reshape(self.RANK_5)
        content = chain(
            (1, 4, 4, 4),
            ("ADD", np.ones(4)),
            ("RESHAPE", self.RANK_5),
            ("ADD", constant),
            ("RESHAPE", (1, 4, 4, 4)),
        )
        run = run_file(content, np.zeros((1, 4, 4, 4), np.float32))
        assert run.outputs is not None
        assert np.array_equal(run.outputs["y"].ravel(), 1 + np.arange(64))
        assert run.remark == (
            "3 of 4 operators on the CPU: ADD: Can't parse inputs with const tensors; "
            "RESHAPE: Tensor dimensions must be less than 5"
        )

    def test_a_file_of_which_nothing_runs_on_the_gpu_is_a_failed_run(self, run_file: RunFile) -> None:
        run = run_file(chain(self.RANK_5, ("ADD", np.ones(self.RANK_5))), np.zeros(self.RANK_5, np.float32))
        assert run.outputs is None
        assert "nothing ran on the GPU; 1 of 1 operators on the CPU: ADD" in run.reason

    @pytest.mark.parametrize("log", ["", "Selected adapter: llvmpipe (LLVM 15.0.6, 256 bits)\n"])
    def test_outputs_without_the_drivers_name_in_the_log_are_not_believed(self, log: str) -> None:
        run = software_gpu.judged(Run({"y": np.zeros(1)}), log)
        assert run.outputs is None
        assert "instead of SwiftShader" in run.reason


HEADS, ROWS, COLUMNS = 8, 5, 6


class TestMisplacedConstants:
    """The accelerator's fault behind wrong attention; if these fail, LiteRT has mended it and the form can go."""

    @pytest.fixture
    def scores(self) -> np.ndarray:
        return np.arange(HEADS * ROWS * COLUMNS, dtype=np.float32).reshape(HEADS, ROWS, COLUMNS)

    def test_every_head_gets_the_first_heads_scores(self, scores: np.ndarray, run_file: RunFile) -> None:
        bias = np.zeros((1, HEADS, ROWS, COLUMNS))
        run = run_file(chain(scores.shape, ("ADD", bias)), scores)
        assert run.outputs is not None
        assert np.array_equal(run.outputs["y"][0], np.broadcast_to(scores[0], scores.shape))

    def test_every_head_gets_the_first_heads_bias(self, scores: np.ndarray, run_file: RunFile) -> None:
        run = run_file(chain(scores.shape, ("ADD", scores)), np.zeros_like(scores))
        assert run.outputs is not None
        assert np.array_equal(run.outputs["y"], np.broadcast_to(scores[0], scores.shape))

    @pytest.mark.parametrize("kind", ["ADD", "MUL", "SUB"])
    @pytest.mark.parametrize("constant", [(HEADS, ROWS, COLUMNS), (1, HEADS, ROWS, COLUMNS), (HEADS, 1, 1)], ids=str)
    def test_in_rank_four_they_are_where_they_belong(
        self, kind: str, constant: tuple[int, ...], scores: np.ndarray, run_file: RunFile
    ) -> None:
        values = np.random.default_rng(0).standard_normal(constant).astype(np.float32)
        content = chain(scores.shape, (kind, values))
        run = run_file(tflite_ranks.align_constants(content), scores)
        expected = {"ADD": np.add, "MUL": np.multiply, "SUB": np.subtract}[kind](scores, values)
        assert run.outputs is not None
        assert np.array_equal(run.outputs["y"], expected)

    @pytest.mark.parametrize("computed", [(), (COLUMNS,), (ROWS, COLUMNS)], ids=str)
    def test_a_computed_tensor_of_lower_rank_meets_its_constant(
        self, computed: tuple[int, ...], scores: np.ndarray, run_file: RunFile
    ) -> None:
        x = np.random.default_rng(0).standard_normal(computed).astype(np.float32)
        run = run_file(tflite_ranks.align_constants(chain(computed, ("ADD", scores))), x)
        assert run.outputs is not None
        assert np.array_equal(run.outputs["y"], x + scores)

    def test_a_constant_that_two_operators_read_keeps_its_rank_for_the_other(self, scores: np.ndarray) -> None:
        model = tflite_file.unpack(chain(scores.shape, ("ADD", scores), ("RESHAPE", (ROWS, HEADS, COLUMNS))))
        (graph,) = model.subgraphs
        graph.operators[1].inputs = [graph.operators[0].inputs[1], graph.operators[1].inputs[1]]
        shared = graph.operators[1].inputs[0]
        (graph,) = tflite_file.unpack(tflite_ranks.align_constants(tflite_file.pack(model))).subgraphs
        assert list(graph.tensors[shared].shape) == [HEADS, ROWS, COLUMNS]

    @pytest.mark.parametrize("constant", [(), (1,), (COLUMNS,), (ROWS, COLUMNS), (1, ROWS, COLUMNS)], ids=str)
    def test_what_is_not_misplaced_stays_as_it_is(self, constant: tuple[int, ...], scores: np.ndarray) -> None:
        content = chain(scores.shape, ("ADD", np.ones(constant)))
        assert tflite_ranks.align_constants(content) is content


class Attention(nn.Module):
    """Four heads that read 7 x 7 places, with a bias for each pair of places; in plain PyTorch."""

    def __init__(self, mix_heads: bool) -> None:
        super().__init__()
        self.heads, width = 4, 32
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.query, self.key, self.value = (nn.Conv2d(16, width, 1) for _ in range(3))
        self.bias = nn.Parameter(torch.randn(self.heads, 49, 49))
        self.before, self.after = (
            nn.Conv2d(self.heads, self.heads, 1) if mix_heads else nn.Identity() for _ in range(2)
        )
        self.projection = nn.Conv2d(width, 10, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, 56, 56) -> (1, 10)."""
        x = self.stem(image)
        query, key, value = (p(x).reshape(1, self.heads, 8, 49) for p in (self.query, self.key, self.value))
        scores = self.before(query.transpose(2, 3) @ key * 8**-0.5 + self.bias)
        mixed = self.after(scores.softmax(-1)) @ value.transpose(2, 3)
        result: Tensor = self.projection(mixed.transpose(2, 3).reshape(1, -1, 7, 7)).mean((2, 3))
        return result


class TestAttention:
    """Attention as the pipeline emits it."""

    @pytest.fixture(scope="class", params=[False, True], ids=["heads apart", "heads mixed"])
    def network(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyNetwork:
        folder = tmp_path_factory.mktemp("attention")
        torch.manual_seed(0)
        network = Attention(request.param).eval()
        images = np.random.default_rng(0).standard_normal((4, 3, 56, 56)).astype(np.float32)
        np.savez(folder / "check.npz", image=images)
        torch.export.save(torch.export.export(network, (torch.from_numpy(images[:1]),)), folder / "program.pt2")
        with torch.no_grad():
            doubles = [network.double()(torch.from_numpy(image[None]).double()) for image in images]
        oracle = {"logits": torch.cat(doubles).numpy()}
        return TinyNetwork(folder / "program.pt2", folder / "check.npz", folder / "check.npz", oracle)

    @pytest.fixture(scope="class")
    def files(self, network: TinyNetwork) -> tuple[Path, dict[str, EmittedFile]]:
        folder = network.program.with_name("files")
        return folder, emit(network.job("tflite_litert", folder, *GATES))

    @pytest.mark.parametrize("precision", GATES)
    def test_holds_the_gate(
        self,
        precision: str,
        gpu: SoftwareGpu,
        network: TinyNetwork,
        files: tuple[Path, dict[str, EmittedFile]],
        sqnr: Sqnr,
        tmp_path: Path,
    ) -> None:
        folder, emitted = files
        run = gpu.run(run_job(emitted[precision], folder, network.check_inputs, tmp_path / "results.npz"))
        assert run.outputs is not None and not run.remark
        floor = ATTENTION_INT8_DB if precision == "int8" else GATES[precision]
        assert sqnr(network.oracle["logits"], run.outputs["logits"]) >= floor

    def test_without_the_form_only_the_gpu_misses_it(
        self,
        gpu: SoftwareGpu,
        network: TinyNetwork,
        files: tuple[Path, dict[str, EmittedFile]],
        sqnr: Sqnr,
        tmp_path: Path,
    ) -> None:
        folder, emitted = files
        file = emitted["fp32"]
        model = tflite_file.unpack((folder / file.file).read_bytes())
        (graph,) = model.subgraphs
        made_by = {o.outputs[0]: o for kind, o, _ in tflite_file.operators(model) if kind == "RESHAPE"}
        (raised,) = (
            o
            for kind, o, _ in tflite_file.operators(model)
            if kind == "ADD" and o.inputs[0] in made_by and b"rank_4" in graph.tensors[o.inputs[0]].name
        )
        reshape = made_by[raised.inputs[0]]
        raised.inputs = [reshape.inputs[0], raised.inputs[1]]
        graph.operators.remove(reshape)
        (tmp_path / file.file).write_bytes(tflite_file.pack(model))
        job = run_job(file, tmp_path, network.check_inputs, tmp_path / "results.npz")
        host, device = processes.run(job), gpu.run(replace(job, results=tmp_path / "gpu.npz"))
        assert host.outputs is not None and device.outputs is not None
        assert sqnr(network.oracle["logits"], host.outputs["logits"]) >= GATES["fp32"]
        assert sqnr(network.oracle["logits"], device.outputs["logits"]) < GATES["fp32"]
