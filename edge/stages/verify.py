"""Verify: run one saved artifact and hold it against the oracle and the target's gate."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge import processes
from edge.parity.gates import Lowering, compare_with_simulation, judge, remark
from edge.parity.metrics import Measured, measure
from edge.records import EmittedFile, RunJob
from edge.stages.define import Network
from edge.targets import Gate

HOST = "host"


@dataclass(frozen=True)
class Check:
    """One artifact on one device.

    Attributes:
        status: "passed", "failed" or "skipped".
        reason: what was missed, or why nothing was checked; empty when passed.
        seconds: median of one inference.
    """

    device: str
    runtime: str
    status: str
    reason: str
    gate: Gate
    measured: Measured | None = None
    lowering: Lowering | None = None
    seconds: float | None = None
    peak_memory_mb: int | None = None


def results_file(folder: Path, file: EmittedFile) -> Path:
    """Where the outputs of an artifact's run go."""
    return folder / f"{file.file}.outputs.npz"


def verify(
    file: EmittedFile,
    folder: Path,
    network: Network,
    largest_activation: float,
    check_inputs: Path,
    gate: Gate,
    threads: int,
) -> Check:
    """Run a saved artifact on the host, in a worker of its own, and judge its outputs.

    Args:
        file: as emitted.
        folder: where the file is.
        network: has the oracle.
        largest_activation: inside the network, see ``Lowered``.
        check_inputs: .npz with the samples.
        gate: the target's, for the artifact's precision.
        threads: how many the runtime may use.
    """
    if file.runs_on == "target":
        reason = f"built for the target's core; this host is {platform.machine()}"
        return Check(HOST, "", "skipped", reason, gate)
    artifact = folder / file.file
    job = RunJob(
        runtime=file.runtime,
        artifact=artifact,
        inputs=file.inputs,
        outputs=file.outputs,
        check_inputs=check_inputs,
        results=results_file(folder, file),
        threads=threads,
    )
    run = processes.run(job)
    if run.outputs is None:
        return Check(HOST, run.runtime, "failed", run.reason, gate, None, None, None, run.peak_memory_mb)
    shapes = {name: outputs.shape for name, outputs in run.outputs.items()}
    expected = {name: outputs.shape for name, outputs in network.oracle.outputs.items()}
    if shapes != expected:
        reason = f"its outputs are {shapes}, the network's {expected}"
        return Check(HOST, run.runtime, "failed", reason, gate, None, None, run.seconds, run.peak_memory_mb)
    tie = (gate.max_rel or 0.0) if gate.top1 is not None else 0.0
    measured = measure(network.oracle.outputs, network.oracle.eager, run.outputs, tie)
    lowering = None
    if file.simulation:
        with np.load(folder / file.simulation) as simulation:
            lowering = compare_with_simulation(file.simulated_by, dict(simulation), network.oracle.outputs, run.outputs)
    misses = judge(measured, lowering, file.notes, gate)
    status, reason = ("failed", misses) if misses else ("passed", remark(largest_activation, gate))
    return Check(HOST, run.runtime, status, reason, gate, measured, lowering, run.seconds, run.peak_memory_mb)
