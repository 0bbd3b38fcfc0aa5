"""The frozen records that travel between stages and processes. Plain dataclasses: workers have no pydantic."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Port:
    """One input or output of an artifact.

    Attributes:
        name: the pipeline's name for it ("image", "logits", "features_0"): the key in every dict of arrays.
        shape: as the artifact has it, batch 1 included.
        layout: "NCHW" or "NHWC" for a feature map, "" for anything else. Arrays between stages are always NCHW.
        tensor: the tensor's own name inside the artifact, which the app's code will need.
        dtype: of the artifact's input or output.
    """

    name: str
    shape: tuple[int, ...]
    layout: str
    tensor: str
    dtype: str = "float32"


@dataclass(frozen=True)
class Tool:
    """The program that wrote an artifact."""

    name: str
    version: str


@dataclass(frozen=True)
class EmittedFile:
    """One file (or one package folder) that a backend wrote.

    Attributes:
        file: name relative to the job's folder.
        runtime: module in ``edge.runtimes`` that runs it.
        runs_on: "anywhere"; or "host" or "target" for machine code that only the host's or the target's core can load;
            or "gpu" for kernels that only a GPU's driver can.
        simulation: name of an .npz (relative to the job's folder) with the outputs of the quantisation simulation for
            the job's check inputs, keyed by output name, shape (N, ...); None where the tool has none. Comparing with
            it tells lowering error from quantisation error.
        simulated_by: what made the simulation, in a few words for the report.
        notes: figures worth showing: delegated share, operator counts, transposes.
    """

    file: str
    runtime: str
    tool: Tool
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    runs_on: str = "anywhere"
    simulation: str | None = None
    simulated_by: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EmitJob:
    """All a backend needs, as files and plain data, so that it can run in another environment.

    Attributes:
        backend: the backend's module, by its full name.
        model: the network's name; artifacts are named after it.
        program: the lowered network, a saved ``torch.export.ExportedProgram`` in float32, batch 1, NCHW.
        inputs: names of the program's inputs, in order.
        outputs: names of the program's outputs, in order.
        precisions: those asked for, in order.
        calibration: .npz with the calibration samples, one array (N, C, H, W) float32 per input name, preprocessed.
        check_inputs: .npz of the same form with the samples every check uses.
        target: the target's profile as plain data (``edge.targets.Target.model_dump``).
        folder: where the files go; exists, is empty, and is this job's alone.
        threads: how many the job may use.
        options: choices of the command that concern this backend only.
    """

    backend: str
    model: str
    program: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    precisions: tuple[str, ...]
    calibration: Path
    check_inputs: Path
    target: dict[str, Any]
    folder: Path
    threads: int = 1
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunJob:
    """Run one saved artifact on every check sample.

    Attributes:
        runtime: module in ``edge.runtimes``.
        artifact: the saved file.
        inputs, outputs: the artifact's ports, as emitted.
        check_inputs: .npz with one array (N, C, H, W) per input name.
        results: .npz to write: one array (N, ...) per output name, in the pipeline's layout.
        threads: how many the runtime may use.
    """

    runtime: str
    artifact: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    check_inputs: Path
    results: Path
    threads: int = 1


def to_json(record: Any) -> Any:
    """A record as JSON-ready data: dataclasses become dicts, paths become strings, tuples become lists."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Path):
        return str(record)
    if isinstance(record, dict):
        return {str(k): to_json(v) for k, v in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_json(v) for v in record]
    return record


def ports_from_json(data: list[dict[str, Any]]) -> tuple[Port, ...]:
    """The inverse of ``to_json`` for a list of ports."""
    return tuple(Port(**{**p, "shape": tuple(p["shape"])}) for p in data)


def emitted_from_json(data: dict[str, Any]) -> EmittedFile:
    """The inverse of ``to_json`` for one emitted file."""
    return EmittedFile(
        **{
            **data,
            "tool": Tool(**data["tool"]),
            "inputs": ports_from_json(data["inputs"]),
            "outputs": ports_from_json(data["outputs"]),
        }
    )


def emit_job_from_json(data: dict[str, Any]) -> EmitJob:
    """The inverse of ``to_json`` for an emit job."""
    paths = {k: Path(data[k]) for k in ("program", "calibration", "check_inputs", "folder")}
    names = {k: tuple(data[k]) for k in ("inputs", "outputs", "precisions")}
    return EmitJob(**{**data, **paths, **names})


def run_job_from_json(data: dict[str, Any]) -> RunJob:
    """The inverse of ``to_json`` for a run job."""
    paths = {k: Path(data[k]) for k in ("artifact", "check_inputs", "results")}
    return RunJob(
        **{
            **data,
            **paths,
            "inputs": ports_from_json(data["inputs"]),
            "outputs": ports_from_json(data["outputs"]),
        }
    )
