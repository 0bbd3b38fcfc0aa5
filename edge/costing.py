"""``edge cost``: what each artifact of an earlier export costs on the target's core, counted on the emulated one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.cost import counter
from edge.cost.cost import Cost, cost
from edge.cost.places import Places
from edge.devices.emulated import Emulated
from edge.errors import ExportError, UsageError
from edge.finished import Finished, chosen, opened
from edge.manifest import Manifest, emitted_file
from edge.parity import vectors as check_vectors
from edge.processes import Run
from edge.progress import Reporter
from edge.records import RunJob, to_json


def count(folder: Path, names: tuple[str, ...], reporter: Reporter) -> tuple[Manifest, list[str]]:
    """Count one warm inference of each artifact that the emulated core takes; the manifest gets the costs.

    Args:
        folder: of a finished export.
        names: of the artifacts; empty for all.
        reporter: shows progress.

    Returns:
        The manifest, as written, and the names of the artifacts that were counted.

    Raises:
        EdgeError: the folder cannot be used, the target's core is not emulated, or an artifact does not run on it.
    """
    with opened(folder, reporter) as finished:
        if finished.target.emulated is None:
            raise UsageError(
                "its core is not emulated, so nothing can be counted",
                stage="cost",
                target=finished.target.name,
                next_step="export for a target whose profile has an [emulated] table, such as cortex-a76",
            )
        finished.vectors("cost")  # a refusal that is better read before the counting than after
        device = Emulated(finished.target)
        entries = [entry for entry in chosen(finished, names) if not device.obstacle(emitted_file(entry))]
        with reporter.running():
            for entry in entries:
                with reporter.lane(entry["file"]) as step:
                    device.ready(step)
                    step("counting")
                    entry["cost"] = _cost(finished, entry, device)
                reporter.note(f"{entry['file']}: {entry['cost']['instructions']:,} instructions")
    return finished.manifest, [entry["file"] for entry in entries]


def _cost(finished: Finished, entry: Manifest, device: Emulated) -> Manifest:
    file = emitted_file(entry)
    work = finished.work / file.file
    work.mkdir()
    job = RunJob(
        runtime=file.runtime,
        artifact=finished.folder / file.file,
        inputs=file.inputs,
        outputs=file.outputs,
        check_inputs=finished.folder / check_vectors.INPUTS,
        results=work / "outputs.npz",
    )
    run = device.count(job)
    if run.executed is None:
        raise ExportError(
            f"{file.file} does not run on the emulated core: {run.reason}",
            stage="cost",
            model=finished.manifest["model"],
            target=finished.target.name,
            next_step="`edge verify` shows what it does wrong; name the other artifacts to leave it out",
        )
    found = cost_of(run, finished)
    return {"device": device.name, "runtime": run.runtime, "ran": found.audit.ran, **to_json(found)}


def cost_of(run: Run, finished: Finished) -> Cost:
    """What a counted run cost, in the network of a finished export.

    Raises:
        ExportError: the counts cannot be read.
        SetupError: LLVM cannot be had, or failed.
    """
    assert run.executed is not None
    places = Places(run.libraries, run.executed.parent)
    return cost(counter.read(run.executed), places, finished.target, finished.manifest["network"]["macs"])


def figures(manifest: Manifest, names: list[str]) -> list[dict[str, Any]]:
    """The figures of each artifact that other tools compare, in the manifest's order."""
    keys = ("device", "instructions", "vector_fma", "modelled_cycles", "floor_cycles", "share_of_floor", "ran")
    return [
        {"file": entry["file"], **{key: entry["cost"][key] for key in keys}}
        for entry in manifest["artifacts"]
        if entry["file"] in names
    ]
