"""Verify: run one saved artifact on a device and hold it against the oracle and the target's gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge import processes
from edge.cost import counter
from edge.cost.audit import Audit, audit
from edge.cost.places import Places
from edge.devices import Device
from edge.errors import SetupError
from edge.parity.agreement import Agreement, compare_bits
from edge.parity.gates import Lowering, compare_with_simulation, judge, judge_bits, remark
from edge.parity.metrics import Array, Measured, measure
from edge.parity.vectors import Vectors, read
from edge.processes import Run
from edge.records import EmittedFile, RunJob
from edge.targets import Gate, Target

RESULTS = "outputs.npz"


@dataclass(frozen=True)
class Check:
    """One artifact on one device.

    Attributes:
        status: "passed", "failed" or "skipped".
        reason: what was missed, or why nothing was checked, or what to know though it passed.
        rows: which of the check samples ran.
        agreement: with the outputs the same artifact, or its build for the host, gave on the host.
        audit: what it executed, where an emulator counted it.
        seconds: median of one inference.
        repeats: seconds of each timed inference, where the device is a real one.
        conditions: what a board says of itself.
    """

    device: str
    runtime: str
    status: str
    reason: str
    gate: Gate
    rows: Sequence[int] = ()
    measured: Measured | None = None
    lowering: Lowering | None = None
    agreement: Agreement | None = None
    audit: Audit | None = None
    seconds: float | None = None
    repeats: tuple[float, ...] = ()
    peak_memory_mb: int | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """In a few words: status, figure, reason."""
        figure = f" at {self.measured.sqnr_db:.1f} dB" if self.measured else ""
        return f"{self.status}{figure}{f': {self.reason}' if self.reason else ''}"


@dataclass(frozen=True)
class Subject:
    """A saved artifact and what it is judged by.

    Attributes:
        file: as emitted; its ``simulation`` is relative to the artifact's folder.
        artifact: the saved file.
        target: has the core's features and the gates.
        precision: of the artifact.
        largest_activation: inside the network, see ``Lowered``.
        macs: of the network.
        host: .npz with the outputs that the host gave for all samples, None on the host itself.
    """

    file: EmittedFile
    artifact: Path
    target: Target
    precision: str
    largest_activation: float
    macs: int
    host: Path | None = None

    @property
    def gate(self) -> Gate:
        """The target's, for the artifact's precision."""
        return self.target.gates[self.precision]


def skipped(devices: Sequence[Device], file: EmittedFile, gate: Gate) -> Check:
    """What an artifact gets that none of the devices takes; it has no device."""
    reasons = "; ".join(f"{device.name}: {device.obstacle(file)}" for device in devices)
    return Check("", "", "skipped", reasons, gate)


def log_of_check(work: Path) -> Path:
    """What was printed where an artifact ran, for the work folder of its check."""
    return processes.log_of(work / RESULTS)


def verify(
    subject: Subject,
    vectors: Vectors,
    device: Device,
    work: Path,
    threads: int,
    progress: Callable[[str], None],
) -> tuple[Check, Path | None]:
    """Run a saved artifact and judge its outputs. A device that cannot be had makes it a skipped check.

    Args:
        subject: the artifact.
        vectors: all of them; the device may run fewer.
        device: where; takes the artifact.
        work: new folder for what the run needs and leaves.
        threads: how many the runtime may use.
        progress: called with a line of text as the work goes on.

    Returns:
        The check, and the .npz with the outputs; None if there are none.
    """
    file, gate = subject.file, subject.gate
    try:
        device.ready(progress)
    except SetupError as error:
        return Check(device.name, "", "skipped", error.message, gate), None
    progress(f"{file.file} on {device.name}")
    work.mkdir(parents=True)
    rows = vectors.rows(device.samples(subject.macs))
    vectors = vectors.take(rows)
    vectors.save(work / "vectors")
    results = work / RESULTS
    job = RunJob(
        runtime=file.runtime,
        artifact=subject.artifact,
        inputs=file.inputs,
        outputs=file.outputs,
        check_inputs=work / "vectors" / "inputs.npz",
        results=results,
        threads=threads,
    )
    run = device.run(job)
    if run.outputs is None:
        return _check(device, run, "failed", run.reason, gate, rows), None
    shapes = {name: outputs.shape for name, outputs in run.outputs.items()}
    expected = {name: outputs.shape for name, outputs in vectors.oracle.items()}
    if shapes != expected:
        reason = f"its outputs are {shapes}, the network's {expected}"
        return _check(device, run, "failed", reason, gate, rows), None
    tie = (gate.max_rel or 0.0) if gate.top1 is not None else 0.0
    measured = measure(vectors.oracle, vectors.eager, run.outputs, tie)
    lowering = _lowering(subject, rows, vectors, run.outputs)
    agreement = compare_bits(_taken(read(subject.host), rows), run.outputs) if subject.host else None
    audited = _audit(run, subject.target)
    misses = [judge(measured, lowering, file.notes, gate)]
    if audited:
        misses += [audited.reason, judge_bits(agreement, audited.precision, file.notes, gate)]
    remarks = [remark(subject.largest_activation, gate), run.remark]
    if audited:
        remarks.append(audited.remark(subject.precision))
    status, sentences = ("failed", misses) if any(misses) else ("passed", remarks)
    reason = "; ".join(filter(None, sentences))
    check = _check(device, run, status, reason, gate, rows, measured, lowering, agreement, audited)
    np.savez(results, allow_pickle=False, **run.outputs)
    return check, results


def _check(
    device: Device,
    run: Run,
    status: str,
    reason: str,
    gate: Gate,
    rows: Sequence[int],
    measured: Measured | None = None,
    lowering: Lowering | None = None,
    agreement: Agreement | None = None,
    audited: Audit | None = None,
) -> Check:
    return Check(
        device.name,
        run.runtime,
        status,
        reason,
        gate,
        rows,
        measured,
        lowering,
        agreement,
        audited,
        run.seconds,
        run.repeats,
        run.peak_memory_mb,
        run.conditions,
    )


def _audit(run: Run, target: Target) -> Audit | None:
    if run.executed is None:
        return None
    return audit(counter.read(run.executed), Places(run.libraries, run.executed.parent), target.core.features)


def _taken(arrays: dict[str, Array], rows: list[int]) -> dict[str, Array]:
    """Those of the rows that the arrays have: a simulation may cover fewer samples than the check."""
    return {name: values[[row for row in rows if row < len(values)]] for name, values in arrays.items()}


def _lowering(subject: Subject, rows: list[int], vectors: Vectors, outputs: dict[str, np.ndarray]) -> Lowering | None:
    if not subject.file.simulation:
        return None
    simulation = _taken(read(subject.artifact.parent / subject.file.simulation), rows)
    return compare_with_simulation(subject.file.simulated_by, simulation, vectors.oracle, outputs)
