"""LiteRT's GPU accelerator on SwiftShader: the kernels of a phone's GPU, computed by the host's processor.

The accelerator generates its kernels for WebGPU here and for OpenCL on a phone, from the same sources. All is computed
in float32: SwiftShader has no half-precision arithmetic, which a phone uses unless the app forbids it.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.options import GpuOptions, Options

from edge.records import Port
from edge.runtimes import Infer, acceleration
from edge.toolchains import swiftshader


def title() -> str:
    """LiteRT, its version, and the driver's; the precision of the arithmetic."""
    driver = f"SwiftShader of chromium {swiftshader.version()}"
    return f"LiteRT {version('ai-edge-litert')}, GPU accelerator in float32 on {driver}"


def load(artifact: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], threads: int) -> Infer:
    """Compile a .tflite file for the GPU; what the accelerator does not take runs on the CPU.

    Which operators these are is in the log, see ``edge.runtimes.acceleration``.

    Args:
        artifact: the file; it has one signature.
        inputs: ports whose ``tensor`` is a name of that signature; float32.
        outputs: the same for the outputs.
        threads: not heeded, the driver takes what cores there are.

    Raises:
        RuntimeError: the file is damaged, or the accelerator cannot compile it.
    """
    swiftshader.use()
    try:
        model = _compiled(artifact, HardwareAccelerator.GPU)
    except RuntimeError:
        model = _compiled(artifact, HardwareAccelerator.GPU | HardwareAccelerator.CPU)
    else:
        print(acceleration.WHOLE, flush=True)
    (signature,) = model.get_signature_list()
    sources = {port.name: model.create_input_buffer_by_name(signature, port.tensor) for port in inputs}
    results = {port.name: model.create_output_buffer_by_name(signature, port.tensor) for port in outputs}

    def infer(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for port in inputs:
            sources[port.name].write(arrays[port.name])
        model.run_by_name(
            signature,
            {port.tensor: sources[port.name] for port in inputs},
            {port.tensor: results[port.name] for port in outputs},
        )
        return {
            port.name: results[port.name].read(int(np.prod(port.shape)), np.float32).reshape(port.shape)
            for port in outputs
        }

    return infer


def _compiled(artifact: Path, processors: HardwareAccelerator) -> CompiledModel:
    options = Options(hardware_accelerators=processors, gpu_options=GpuOptions(enforce_f32=True))
    return CompiledModel.from_file(str(artifact), options=options)
