"""Figures from the target's emulated core: what one warm inference executes, and LLVM's model of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge import costing, pipeline
from edge.bench import results
from edge.bench.emulated_python import EmulatedPython
from edge.bench.entrant import Entrant, check_of
from edge.bench.peers import WHEELS
from edge.bench.quantities import verdict
from edge.bench.results import Row
from edge.cost.cost import UNKNOWN
from edge.devices import Device
from edge.devices.emulated import Emulated
from edge.errors import ExportError, SetupError
from edge.finished import Finished
from edge.manifest import Manifest, emitted_file
from edge.parity import vectors as check_vectors
from edge.progress import Reporter
from edge.records import EmittedFile, RunJob, to_json
from edge.request import Request
from edge.targets import Target


class Counting:
    """See ``edge.bench.measure.Measure``."""

    by = "modelled_cycles"
    wheels = WHEELS

    def __init__(self, target: Target) -> None:
        assert target.emulated is not None
        self.core = f"an emulated {target.emulated.cpu}"
        self.scheduling_model = target.emulated.scheduling_model
        self._peers = EmulatedPython(target)
        self.device: Device = self._peers
        self._native = Emulated(target)

    def obstacle(self, file: EmittedFile) -> str:
        """The emulated core's."""
        return self._native.obstacle(file)

    def export(self, request: Request, reporter: Reporter) -> Manifest:
        """Export; what passes its check on the emulated core is counted, which the manifest keeps."""
        manifest = pipeline.export(request, reporter)
        uncounted = tuple(
            entry["file"]
            for entry in manifest["artifacts"]
            if entry["file"]
            and not self.obstacle(emitted_file(entry))
            and check_of(entry, self._native.name)["status"] == "passed"
            and not entry.get("cost")
        )
        return costing.count(request.folder, uncounted, reporter)[0] if uncounted else manifest

    def rows(self, entrants: Sequence[Entrant], finished: Finished, reporter: Reporter) -> tuple[Row, ...]:
        """Ours were counted with the export; peers are now."""
        costs = {entry["file"]: entry["cost"] for entry in finished.artifacts if entry.get("cost")}
        rows = []
        for entrant in entrants:
            row = entrant.row
            if entrant.has_passed and row.file in costs:
                row = row.costing(costs[row.file])
            elif entrant.has_passed:
                with reporter.lane(row.runtime) as step:
                    step("counting")
                    row = self._counted(entrant, finished).row
                reporter.note(f"{row.runtime}: {verdict(row, self.by)}")
            rows.append(row)
        return results.rated(rows, self.by)

    def _counted(self, entrant: Entrant, finished: Finished) -> Entrant:
        """The entrant with its cost, or with the reason why it has none."""
        file, artifact = entrant.file, entrant.artifact
        assert file and artifact
        work = finished.work / f"{file.runtime}.count"
        work.mkdir()
        job = RunJob(
            runtime=file.runtime,
            artifact=artifact,
            inputs=file.inputs,
            outputs=file.outputs,
            check_inputs=finished.folder / check_vectors.INPUTS,
            results=work / "outputs.npz",
        )
        run = self._peers.count(job)
        if run.executed is None:
            return entrant.failed(f"counting: {run.reason}")
        try:
            found = costing.cost_of(run, finished)
        except (ExportError, SetupError) as error:
            return entrant.failed(f"counting: {error.message}")
        return replace(entrant, row=entrant.row.costing(to_json(found)))

    def method(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """What was counted, and what is not known."""
        return (
            "The core is QEMU's, in its user mode; no device.",
            "Instructions and vector FMA are exact counts and repeat to the digit; but ONNX Runtime now and then "
            "executes a few hundred instructions more or less. Runtimes that come as Python wheels are counted with "
            "the call from Python and the copies in and out.",
            f"Modelled cycles are the executed blocks in LLVM's model of the {self.scheduling_model}; of floor: the "
            "core's peak by the modelled cycles; ratio: the modelled cycles by those of the best float32 peer.",
            *UNKNOWN,
        )
