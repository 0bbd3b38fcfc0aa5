"""TFLite through ONNX, onnx2tf and TensorFlow's converter: the second opinion. Runs in the ``onnx2tf`` environment.

onnx2tf is asked for its Keras network only. What it would write itself (a SavedModel and .tflite files after onnxsim's
passes) takes minutes, and its files do not have our names.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx2tf
import tensorflow as tf
import torch

from edge.backends import tflite
from edge.records import EmitJob, EmittedFile, Tool

# onnx2tf compares layers with ONNX on these "images", and downloads the file unless it lies in the working directory.
_SAMPLES_FILE = "calibration_image_sample_data_20x128x128x3_float32.npy"


@dataclass(frozen=True)
class Converted:
    """The network in TensorFlow, under our names.

    Attributes:
        function: concrete function on tensors by name.
        owner: keeps the function's variables.
        float32: content of the .tflite file.
    """

    function: Any
    owner: tf.Module
    float32: bytes


@contextlib.contextmanager
def _desk(job: EmitJob) -> Iterator[None]:
    """Work in a folder of our own that has the file of samples, and remove it afterwards."""
    images = [samples for samples in tflite.calibration_samples(job).values() if samples.ndim == 4]
    with tempfile.TemporaryDirectory(dir=job.folder) as desk, contextlib.chdir(desk):
        if images:
            np.save(Path(desk) / _SAMPLES_FILE, images[0])
        yield


def _to_onnx(job: EmitJob) -> Any:
    program = torch.onnx.export(
        torch.export.load(job.program),
        dynamo=True,
        opset_version=20,  # the first that has Gelu as one operator
        input_names=list(job.inputs),
        output_names=list(job.outputs),
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _channels_last(network: Any, job: EmitJob) -> Callable[..., dict[str, tf.Tensor]]:
    """The Keras network as a function on tensors by name; onnx2tf says of each output whether it is NHWC already."""

    def call(**arrays: tf.Tensor) -> dict[str, tf.Tensor]:
        results = network([arrays[name] for name in job.inputs])
        results = results if isinstance(results, (list, tuple)) else [results]
        return {
            name: tf.transpose(result, (0, 2, 3, 1))
            if len(result.shape) == 4 and not network.onnx_output_layouts[name]
            else result
            for name, result in zip(job.outputs, results, strict=True)
        }

    return call


def prepare(job: EmitJob) -> Converted:
    """Convert the program to TensorFlow once.

    The float32 file is made here: an int8 one's weights are held against it.
    """
    graph = _to_onnx(job)
    with _desk(job):
        network = onnx2tf.convert(
            onnx_graph=graph,
            output_folder_path="saved_model",
            not_use_onnxsim=True,
            disable_model_save=True,
            verbosity="warn",
        )
    specs = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name)
        for name, tensor in zip(job.inputs, network.inputs, strict=True)
    }
    # Not the Keras network itself: TensorFlow would save it on the way, with every weight written out as JSON.
    owner = tf.Module()
    owner.variables_of_network = network.variables
    function = tf.function(_channels_last(network, job)).get_concrete_function(**specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], owner)
    return Converted(function, owner, converter.convert())


def emit(job: EmitJob, prepared: Converted, precision: str) -> list[EmittedFile]:
    """Write ``<model>.<precision>.tflite``.

    fp32 is the conversion itself, fp16 has float16 weights, int8 is calibrated on ``job.calibration`` and has float32
    inputs and outputs.
    """
    converter = tf.lite.TFLiteConverter.from_concrete_functions([prepared.function], prepared.owner)
    match precision:
        case "fp32":
            content = prepared.float32
        case "fp16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
            content = converter.convert()
        case "int8":
            samples = tflite.calibration_samples(job)
            count = len(next(iter(samples.values())))
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: (
                {name: array[index : index + 1] for name, array in samples.items()} for index in range(count)
            )
            content = converter.convert()
        case _:
            raise ValueError(f"TFLite has no precision {precision!r}")
    tflite.destination(job, precision).write_bytes(content)
    tool = Tool("onnx2tf + tensorflow", f"{version('onnx2tf')} + {version('tensorflow')}")
    return [tflite.emitted(job, precision, tool, prepared.float32)]
