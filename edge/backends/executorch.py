"""ExecuTorch programs for XNNPACK: a .pte to ship and, beside it, the same program with its own test cases (.bpte)."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.devtools import BundledProgram
from executorch.devtools.bundled_program.config import MethodTestCase, MethodTestSuite
from executorch.devtools.bundled_program.serialize import serialize_from_bundled_program_to_flatbuffer
from executorch.exir import ExecutorchProgramManager, to_edge_transform_and_lower
from torch.export import ExportedProgram
from torch.utils import _pytree

from edge.backends.executorch_bookkeeping import lean_bookkeeping
from edge.backends.executorch_delegation import delegation_notes
from edge.backends.executorch_partitioner import xnnpack_partitioner
from edge.backends.executorch_quantize import Samples, observe, quantise, with_observers
from edge.backends.executorch_ranges import choose_precision
from edge.backends.executorch_tolerance import TOLERANCE_METHOD
from edge.quantisation.notes import mixed_precision_notes
from edge.quantisation.timing import fastest_seconds
from edge.records import EmitJob, EmittedFile, Port, RunJob, Tool

SIMULATED_BY = "the converted PT2E program in PyTorch, quantise and dequantise in its graph"

BUNDLED_SAMPLES = (0, -1)
"""Check samples inside a .bpte: a photograph and an image of random pixels. More would only make it larger."""

Outputs = list[list[torch.Tensor]]


@dataclass(frozen=True)
class Prepared:
    """What both precisions share. The program itself is read anew for each: quantising rewrites graphs in place.

    Attributes:
        check: the check samples, each a tuple of the inputs (1, C, H, W).
        cases: the bundled ones, each with the float32 program's outputs, by PyTorch.
        largest: magnitude among those outputs.
    """

    check: Samples
    cases: list[MethodTestCase]
    largest: float


def _samples(path: Path, names: tuple[str, ...]) -> Samples:
    with np.load(path) as arrays:
        columns = [torch.from_numpy(arrays[name]) for name in names]
    return [tuple(column[index : index + 1] for column in columns) for index in range(len(columns[0]))]


def _evaluate(network: torch.nn.Module, samples: Samples) -> Outputs:
    with torch.no_grad():
        return [_pytree.tree_leaves(network(*sample)) for sample in samples]


def prepare(job: EmitJob) -> Prepared:
    """Read the check samples and make test cases of two of them."""
    torch.set_num_threads(job.threads)
    check = _samples(job.check_inputs, job.inputs)
    bundled = [check[index] for index in BUNDLED_SAMPLES]
    expected = _evaluate(torch.export.load(job.program).module(check_guards=False), bundled)
    cases = [MethodTestCase(inputs, outputs) for inputs, outputs in zip(bundled, expected, strict=True)]
    return Prepared(check, cases, max(float(output.abs().max()) for outputs in expected for output in outputs))


def emit(job: EmitJob, prepared: Prepared, precision: str) -> list[EmittedFile]:
    """Write ``<model>.<precision>.pte`` and ``.bpte``; for int8 also the simulation's outputs (.npz).

    The test cases in the .bpte expect the float32 program's outputs, as close as the target's gate asks. In int8,
    those layers stay in float without which the gate would be missed.
    """
    if precision == "int8":
        return _emit_int8(job, prepared)
    return _write(job, prepared, precision, torch.export.load(job.program), None)


def _emit_int8(job: EmitJob, prepared: Prepared) -> list[EmittedFile]:
    calibration = _samples(job.calibration, job.inputs)
    gate_db = job.target["gates"]["int8"]["sqnr_db"]
    precision = choose_precision(lambda: torch.export.load(job.program), calibration, gate_db)
    choice, rule = precision.choice, precision.rule
    program, notes = quantise(precision.observed, calibration[0])
    with tempfile.TemporaryDirectory(dir=job.folder) as folder:
        plain = None
        if choice.kept:
            plain = Path(folder) / "plain.pte"
            plain.write_bytes(_lower(program, _tolerance(job, prepared, "int8"))[0].buffer)
            mixed_program = with_observers(torch.export.load(job.program), rule, choice.names)
            program, notes = quantise(observe(mixed_program, rule, calibration), calibration[0])
        saved = _save_simulation(job, _evaluate(program.module(check_guards=False), prepared.check))
        files = _write(job, prepared, "int8", program, saved)
        path = job.folder / files[0].file
        seconds: list[float] = []
        if plain:
            run = RunJob(files[0].runtime, path, files[0].inputs, files[0].outputs, job.check_inputs, path, job.threads)
            seconds = fastest_seconds([replace(run, artifact=plain), run])
        mixed = mixed_precision_notes(choice, precision.layers, path, plain, seconds)
    held_out = {each: round(worst.sqnr_db, 2) for each, worst in precision.held_out.items()}
    notes |= {"activation_ranges": rule, "held_out_db": held_out}
    shipped, bundle = files
    # What mixed precision cost was measured on the file that ships; why there is none is said of both.
    return [
        replace(shipped, notes=shipped.notes | notes | mixed),
        replace(bundle, notes=bundle.notes | notes | (mixed if choice.refused else {})),
    ]


def _write(
    job: EmitJob, prepared: Prepared, precision: str, program: ExportedProgram, simulation: str | None
) -> list[EmittedFile]:
    """Lower a program and write both files."""
    tolerance = _tolerance(job, prepared, precision)
    executable, delegation = _lower(program, tolerance)
    name = f"{job.model}.{precision}"
    (job.folder / f"{name}.pte").write_bytes(executable.buffer)
    (job.folder / f"{name}.bpte").write_bytes(_bundle(executable, prepared.cases))
    ports: dict[str, Any] = {
        "inputs": _ports(job.inputs, prepared.check[0], "input"),
        "outputs": _ports(job.outputs, prepared.cases[0].expected_outputs, "output"),
        "tool": Tool("executorch", version("executorch")),
        "simulation": simulation,
        "simulated_by": SIMULATED_BY if simulation else "",
    }
    return [
        EmittedFile(f"{name}.pte", "executorch", notes=delegation, **ports),
        EmittedFile(
            f"{name}.bpte",
            "executorch_bundled",
            notes={"test_cases": len(prepared.cases), "test_case_tolerance": tolerance},
            **ports,
        ),
    ]


def _tolerance(job: EmitJob, prepared: Prepared, precision: str) -> float:
    """How far an output of a test case may be off."""
    return float(job.target["gates"][precision]["max_rel"]) * prepared.largest


def _lower(program: ExportedProgram, tolerance: float) -> tuple[ExecutorchProgramManager, dict[str, Any]]:
    """Delegate to XNNPACK what it takes; the executable program and the notes on what was delegated."""
    with lean_bookkeeping():
        edge_program = to_edge_transform_and_lower(
            program, partitioner=[xnnpack_partitioner()], constant_methods={TOLERANCE_METHOD: tolerance}
        )
    notes = delegation_notes(edge_program.exported_program().graph_module)
    return edge_program.to_executorch(), notes


def _bundle(executable: ExecutorchProgramManager, cases: list[MethodTestCase]) -> bytes:
    suite = MethodTestSuite(method_name="forward", test_cases=cases)
    return serialize_from_bundled_program_to_flatbuffer(BundledProgram(executable, [suite]))


def _save_simulation(job: EmitJob, outputs: Outputs) -> str:
    columns = [torch.cat(column).numpy() for column in zip(*outputs, strict=True)]
    arrays: dict[str, Any] = dict(zip(job.outputs, columns, strict=True))
    path = job.folder / f"{job.model}.int8.simulation.npz"
    np.savez(path, **arrays)
    return path.name


def _ports(names: tuple[str, ...], tensors: Any, side: str) -> tuple[Port, ...]:
    return tuple(
        Port(
            name,
            tuple(tensor.shape),
            "NCHW" if tensor.ndim == 4 else "",
            f"forward {side} {index}",
            str(tensor.dtype).removeprefix("torch."),
        )
        for index, (name, tensor) in enumerate(zip(names, tensors, strict=True))
    )
