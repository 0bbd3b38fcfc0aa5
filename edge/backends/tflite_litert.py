"""TFLite through litert-torch and ai-edge-quantizer: the default converter. Runs in the ``litert`` environment."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import litert_torch
import numpy as np
import torch
from torch import Tensor, nn

from edge.backends import tflite, tflite_biases, tflite_quantize, tflite_ranks, tflite_simulation, tflite_softmax
from edge.calibration.focus import out_of_focus
from edge.quantisation.notes import mixed_precision_notes
from edge.quantisation.search import choose
from edge.quantisation.timing import fastest_seconds
from edge.records import EmitJob, EmittedFile, RunJob, Tool


class ChannelsLast(nn.Module):
    """A network with NHWC inputs and outputs, by name: litert-torch takes the signature's names from the dicts.

    The transposes cancel against those that the converter puts around convolutions.
    """

    def __init__(self, network: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        """Wrap a network that takes and returns NCHW arrays in the order of the names."""
        super().__init__()
        self.network, self.inputs, self.outputs = network, inputs, outputs
        # An exported program's module has no eval(); this one says that there is nothing to switch.
        self.training = False

    def forward(self, **arrays: Tensor) -> dict[str, Tensor]:
        """4-D arrays are (N, H, W, C) on both sides; others pass as they are."""
        results = self.network(*(_to_nchw(arrays[name]) for name in self.inputs))
        results = (results,) if isinstance(results, Tensor) else results
        return {name: _to_nhwc(result) for name, result in zip(self.outputs, results, strict=True)}


def _to_nchw(array: Tensor) -> Tensor:
    return array.permute(0, 3, 1, 2) if array.ndim == 4 else array


def _to_nhwc(array: Tensor) -> Tensor:
    return array.permute(0, 2, 3, 1) if array.ndim == 4 else array


def prepare(job: EmitJob) -> bytes:
    """Convert the program once.

    Returns:
        The float32 .tflite file.
    """
    program = torch.export.load(job.program)
    shapes = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"}
    examples = [torch.zeros(shapes[name]) for name in program.graph_signature.user_inputs]
    network = ChannelsLast(tflite_softmax.keep_whole(program.module()), job.inputs, job.outputs)
    feeds = {name: _to_nhwc(example).contiguous() for name, example in zip(job.inputs, examples, strict=True)}
    content = litert_torch.convert(network, sample_kwargs=feeds).model_content()
    return tflite_biases.flatten(tflite_ranks.align_constants(content))


def emit(job: EmitJob, prepared: bytes, precision: str) -> list[EmittedFile]:
    """Write ``<model>.<precision>.tflite``.

    fp32 is the conversion itself, fp16 has float16 weights, int8 is calibrated on ``job.calibration``
    and keeps those operators in float without which its gate would be missed.
    """
    path = tflite.destination(job, precision)
    match precision:
        case "fp32":
            path.write_bytes(prepared)
        case "fp16":
            tflite_quantize.to_float16_weights(prepared, path)
        case "int8":
            return [_emit_int8(job, prepared)]
        case _:
            raise ValueError(f"TFLite has no precision {precision!r}")
    return [tflite.emitted(job, precision, _tool(precision), prepared)]


def _tool(precision: str) -> Tool:
    tools = ["litert-torch"] if precision == "fp32" else ["litert-torch", "ai-edge-quantizer"]
    return Tool(" + ".join(tools), " + ".join(map(version, tools)))


def _out_of_focus(samples: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) out of focus, anything else as it is."""
    return _to_nhwc(out_of_focus(_to_nchw(torch.from_numpy(samples)))).numpy()


def _emit_int8(job: EmitJob, prepared: bytes) -> EmittedFile:
    sharp = tflite.calibration_samples(job)
    samples = {name: np.concatenate([array, _out_of_focus(array)]) for name, array in sharp.items()}
    blurred = len(next(iter(sharp.values())))
    calibrated = tflite_quantize.Calibrated(prepared, samples, job.threads)
    simulation = tflite_simulation.FileSimulation(prepared, calibrated, samples, blurred, job.threads)
    choice = choose(simulation, job.target["gates"]["int8"]["sqnr_db"])
    path = tflite.destination(job, "int8")
    path.write_bytes(calibrated.to_int8(choice.names))
    file = tflite.emitted(job, "int8", _tool("int8"), prepared)
    with tempfile.TemporaryDirectory(dir=job.folder) as folder:
        plain = Path(folder) / path.name
        seconds: list[float] = []
        if choice.kept:
            plain.write_bytes(calibrated.to_int8())
            run = RunJob(file.runtime, path, file.inputs, file.outputs, job.check_inputs, path, job.threads)
            seconds = fastest_seconds([replace(run, artifact=plain), run])
        notes = mixed_precision_notes(choice, simulation.layers, path, plain, seconds)
    return replace(file, notes=file.notes | notes)
