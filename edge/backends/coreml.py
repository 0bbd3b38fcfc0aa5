"""Core ML programs (mlprogram packages) through coremltools.

fp32 is float32 throughout; fp16 has float16 weights, activations, inputs and outputs, but keeps those operations in
float32 without which its gate would be missed; int8 is float16 throughout with linear symmetric int8 weights, one scale
per output channel, which Core ML decompresses when it loads or runs the model.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as compress
import numpy as np
import torch
from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2
from torch.export import ExportedProgram

from edge.backends import (
    coreml_gelu,  # noqa: F401
    coreml_package,
    coreml_scale_and_shift,  # noqa: F401
    coreml_simulation,
)
from edge.backends.coreml_half import HalfSimulation
from edge.quantisation.notes import mixed_precision_notes
from edge.quantisation.search import choose
from edge.records import EmitJob, EmittedFile, Port, Tool
from edge.runtimes.mil import Program

DEFAULT_DEPLOYMENT_TARGET = "iOS16"

_INT8_WEIGHTS = compress.OpLinearQuantizerConfig(
    mode="linear_symmetric",
    dtype="int8",
    granularity="per_channel",
    weight_threshold=coreml_simulation.SMALLEST_QUANTISED - 1,
)
_WEIGHTED = ("conv", "linear")
_DEQUANTISING = ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")


def prepare(job: EmitJob) -> ExportedProgram:
    """Load the program; coremltools takes it decomposed to ATen."""
    torch.set_num_threads(job.threads)
    return torch.export.load(job.program).run_decompositions({})


def emit(job: EmitJob, prepared: ExportedProgram, precision: str) -> list[EmittedFile]:
    """Write ``<model>.<precision>.mlpackage``; beside an int8 one, its quantisation simulation.

    Raises:
        RuntimeError: coremltools quantised other weights than the simulation did, or computes in float16 what was to
            stay in float32.
    """
    path = job.folder / f"{job.model}.{precision}.mlpackage"
    notes: dict[str, Any] = {}
    simulation: dict[str, Any] = {}
    match precision:
        case "fp32":
            spec = coreml_package.save(_convert(job, prepared, ct.precision.FLOAT32), path)
        case "fp16":
            spec, notes = _save_half(job, prepared, path)
        case "int8":
            model = _convert(job, prepared, ct.precision.FLOAT16)
            config = compress.OptimizationConfig(op_name_configs=dict.fromkeys(_weights(model), _INT8_WEIGHTS))
            spec = coreml_package.save(compress.linear_quantize_weights(model, config), path)
            notes = _quantisation_notes(spec, prepared)
            results = job.folder / f"{job.model}.{precision}.simulation.npz"
            coreml_simulation.simulate(job, prepared, results)
            simulation = {"simulation": results.name, "simulated_by": coreml_simulation.SIMULATED_BY}
        case _:
            raise ValueError(f"Core ML has no precision {precision!r}")
    return [
        EmittedFile(
            file=path.name,
            runtime="coreml",
            tool=Tool("coremltools", ct.__version__),
            inputs=_ports(job.inputs, spec.description.input),
            outputs=_ports(job.outputs, spec.description.output),
            notes=_operator_notes(spec) | notes,
            **simulation,
        )
    ]


def _save_half(job: EmitJob, program: ExportedProgram, path: Path) -> tuple[Model_pb2.Model, dict[str, Any]]:
    """Write the package in float16, with those operations in float32 that the gate needs; and the notes on these."""
    with tempfile.TemporaryDirectory(dir=job.folder) as folder:
        exact, plain = Path(folder) / "exact.mlpackage", Path(folder) / "plain.mlpackage"
        coreml_package.save(_convert(job, program, ct.precision.FLOAT32), exact)
        with np.load(job.calibration) as arrays:
            simulation = HalfSimulation(Program(exact), {name: arrays[name] for name in job.inputs})
        choice = choose(simulation, job.target["gates"]["fp16"]["sqnr_db"])
        model = _convert(job, program, ct.precision.FLOAT16)
        if not choice.kept:
            return coreml_package.save(model, path), mixed_precision_notes(choice, simulation.layers, path, None)
        coreml_package.save(model, plain)

        def in_half(operation: Any) -> bool:
            return simulation.layer_of(operation.outputs[0].name) not in choice.names

        mixed = _convert(job, program, ct.transform.FP16ComputePrecision(op_selector=in_half))
        spec = coreml_package.save(mixed, path)
        if rounded := choice.names - {simulation.layer_of(name) for name in _float32_results(spec)}:
            raise RuntimeError(f"coremltools computes in float16 what was to stay in float32: {sorted(rounded)}")
        return spec, mixed_precision_notes(choice, simulation.layers, path, plain)


def _float32_results(spec: Model_pb2.Model) -> list[str]:
    """Names of the values that operations compute in float32."""
    return [
        output.name
        for operation in _operations(spec)
        for output in operation.outputs
        if operation.type != "cast" and output.type.tensorType.dataType == MIL_pb2.FLOAT32
    ]


def _weights(model: ct.models.MLModel) -> list[str]:
    """Names of the constants to quantise.

    Only what is computed with: a table that is added or gathered keeps its precision. By name, because coremltools
    stores equal constants once, and takes no choice by operator for one that several kinds of operators read: a bias of
    zeros that is also a norm's shift.
    """
    large = compress.get_weights_metadata(model, _INT8_WEIGHTS.weight_threshold)
    return [
        name
        for name, constant in large.items()
        if any(o.op_type in _WEIGHTED and o.params_name_mapping.get("weight") == name for o in constant.child_ops)
    ]


def _convert(job: EmitJob, program: ExportedProgram, precision: Any) -> ct.models.MLModel:
    target = (job.target.get("coreml") or {}).get("minimum_deployment_target", DEFAULT_DEPLOYMENT_TARGET)
    shapes = {n.name: tuple(n.meta["val"].shape) for n in program.graph.nodes if n.op == "placeholder"}
    tensors = program.graph_signature.user_inputs
    return ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target[target],
        compute_precision=precision,
        inputs=[
            ct.TensorType(name=name, shape=shapes[tensor]) for name, tensor in zip(job.inputs, tensors, strict=True)
        ],
        outputs=[ct.TensorType(name=name) for name in job.outputs],
    )


def _ports(names: tuple[str, ...], features: Any) -> tuple[Port, ...]:
    described = {f.name: f.type.multiArrayType for f in features}
    data_type = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Name
    return tuple(
        Port(
            name=name,
            shape=tuple(described[name].shape),
            layout="NCHW" if len(described[name].shape) == 4 else "",
            tensor=name,
            dtype=data_type(described[name].dataType).lower(),
        )
        for name in names
    )


def _operations(spec: Model_pb2.Model) -> Iterator[MIL_pb2.Operation]:
    """Of the program, constants left out."""
    function = spec.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        if operation.type != "const":
            yield operation


def _operator_notes(spec: Model_pb2.Model) -> dict[str, Any]:
    counts = Counter(o.type for o in _operations(spec) if not o.type.startswith("constexpr_"))
    return {
        "operators": sum(counts.values()),
        "transposes": counts["transpose"],
        "operator_types": dict(sorted(counts.items())),
        "opset": spec.mlProgram.functions["main"].opset,
    }


def _quantisation_notes(spec: Model_pb2.Model, program: ExportedProgram) -> dict[str, Any]:
    """Share of the parameters that are int8, after checking that they are those that the simulation quantises."""
    stored = Counter(
        tuple(d.constant.size for d in operation.outputs[0].type.tensorType.dimensions)
        for operation in _operations(spec)
        if operation.type in _DEQUANTISING
    )
    expected = Counter(coreml_simulation.quantised_weights(program).values())
    if stored != expected:
        only = {"file": dict(stored - expected), "simulation": dict(expected - stored)}
        raise RuntimeError(f"the file and the simulation quantise different weights: {only}")
    count = sum(torch.Size(shape).numel() * times for shape, times in stored.items())
    total = sum(p.numel() for p in program.parameters())
    return {"quantised_weights": stored.total(), "quantised_share": round(count / total, 4)}
