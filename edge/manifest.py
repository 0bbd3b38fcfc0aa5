"""The manifest: everything a run made and measured, as plain data that other tools read.

Figures that JSON cannot write are capped: 999 dB means that nothing differs at all, -999 dB that an output is not
finite.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import __version__, processor, targets
from edge.calibration.photographs import CHECK, RANDOM_CHECKS
from edge.fingerprint import commit, file_digest, size_bytes
from edge.records import EmittedFile, Tool, ports_from_json, to_json
from edge.request import Request, Unit
from edge.toolchains import arm64, chromium, debian, environments, pocl

if TYPE_CHECKING:
    from edge.processes import Emission
    from edge.stages.define import Network
    from edge.stages.lower import Programs
    from edge.stages.verify import Check

SCHEMA = 5
FILE = "manifest.json"
CAP_DB = 999.0
DEVICE_TOOLS = {"emulated": arm64.NAME, "software-gpu": chromium.NAME, "software-opencl": pocl.NAME}
"""The distribution's packages that a device is made of."""
PACKAGES = ("torch", "torchao", "numpy", "executorch", "coremltools", "apache-tvm", "apache-tvm-ffi", "ai-edge-litert")

Manifest = dict[str, Any]

SAMPLE_KINDS = ("photograph",) * len(CHECK) + ("random",) * RANDOM_CHECKS
"""What the check samples are, in order."""


def read(folder: Path) -> Manifest | None:
    """The manifest in a folder; None if there is none that can be used, which only means that work is done again."""
    try:
        manifest = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("schema") == SCHEMA else None


def text(manifest: Manifest) -> str:
    """The manifest as it is written."""
    return json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Infinite figures become the cap, NaN becomes null; tuples become lists."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return max(-CAP_DB, min(CAP_DB, value)) if math.isinf(value) else value
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def check_entry(check: Check) -> Manifest:
    """One check, as an artifact's entry lists it."""
    measured = check.measured
    entry: Manifest = {
        "device": check.device,
        "runtime": check.runtime,
        "status": check.status,
        "reason": check.reason,
        "gate": check.gate.model_dump(exclude_none=True),
        "seconds": check.seconds,
        "repeats": check.repeats,
        "peak_memory_mb": check.peak_memory_mb,
        "conditions": check.conditions,
    }
    if measured:
        entry |= {
            "sqnr_db": measured.sqnr_db,
            "max_rel": measured.max_rel,
            "max_abs": measured.max_abs,
            "top1": measured.top1,
            "rms_vs_eager": measured.rms_vs_eager,
            "samples": {"sqnr_db": measured.sample_sqnr_db, "kind": [SAMPLE_KINDS[row] for row in check.rows]},
            "lowering": dataclasses.asdict(check.lowering) if check.lowering else None,
            "host_agreement": dataclasses.asdict(check.agreement) if check.agreement else None,
            "executed": {"ran": check.audit.ran, **to_json(check.audit)} if check.audit else None,
        }
    return _finite(entry)


def artifact_entry(
    unit: Unit,
    key: str,
    emission: Emission,
    file: EmittedFile,
    path: Path,
    checks: Sequence[Check],
    host_outputs: str | None,
) -> Manifest:
    """One emitted file with its checks.

    Args:
        unit: what it was emitted for.
        key: the unit's fingerprint.
        emission: of the unit.
        file: as emitted; its ``simulation`` is relative to the folder of the manifest.
        path: where the file lies now.
        checks: one for each device.
        host_outputs: .npz with what it gave on the host, relative to the folder of the manifest.
    """
    return _finite(
        {
            "file": file.file,
            "format": unit.format.name,
            "precision": unit.precision,
            "sha256": file_digest(path),
            "bytes": size_bytes(path),
            "tool": to_json(file.tool),
            "seconds": emission.seconds,
            "peak_memory_mb": emission.peak_memory_mb,
            "inputs": to_json(file.inputs),
            "outputs": to_json(file.outputs),
            "runtime": file.runtime,
            "runs_on": file.runs_on,
            "simulation": file.simulation,
            "simulated_by": file.simulated_by,
            "host_outputs": host_outputs,
            "notes": to_json(file.notes),
            "key": key,
            "checks": [check_entry(check) for check in checks],
        }
    )


def emitted_file(entry: Manifest) -> EmittedFile:
    """The record of an artifact from its entry: what a device needs to run it again."""
    return EmittedFile(
        file=entry["file"],
        runtime=entry["runtime"],
        tool=Tool(**entry["tool"]),
        inputs=ports_from_json(entry["inputs"]),
        outputs=ports_from_json(entry["outputs"]),
        runs_on=entry["runs_on"],
        simulation=entry["simulation"],
        simulated_by=entry["simulated_by"],
        notes=entry["notes"],
    )


def missing_entry(unit: Unit, key: str, emission: Emission) -> Manifest:
    """A unit of which there is no file: its exporter failed, or was skipped."""
    return {
        "file": None,
        "format": unit.format.name,
        "precision": unit.precision,
        "seconds": emission.seconds,
        "peak_memory_mb": emission.peak_memory_mb,
        "key": key,
        "checks": [
            {"device": "host", "runtime": unit.format.runs_with, "status": emission.status, "reason": emission.reason}
        ],
    }


def environment(request: Request, sources: str) -> Manifest:
    """Where and with what the run was made."""
    names = dict.fromkeys(["base", *(unit.converter.environment for unit in request.units)])
    tools = [tvm.linker.package for tvm in (request.target.tvm, targets.baseline(platform.machine()).tvm) if tvm]
    tools += [tool for device, tool in DEVICE_TOOLS.items() if device in request.checked_on]
    return {
        "edge": __version__,
        "sources": sources,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": processor.name(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "locks": {name: environments.lock_digest(name) for name in names},
        "tools": debian.unpacked(dict.fromkeys(tools)),
    }


def unfinished(artifacts: list[Manifest]) -> Manifest:
    """Of a run that is under way: the entries of what it has made and checked so far."""
    found: Manifest = _finite({"schema": SCHEMA, "artifacts": artifacts})
    return found


def assemble(
    request: Request,
    network: Network,
    programs: Programs,
    artifacts: list[Manifest],
    *,
    sources: str,
    seconds: float,
) -> Manifest:
    """The whole manifest of a run; artifacts in the order of the request's units."""
    calibration = network.calibration
    return _finite(
        {
            "schema": SCHEMA,
            "model": request.name,
            "target": request.target.name,
            "profile": request.target.model_dump(mode="json", exclude_none=True),
            "command": request.command,
            "network": {
                **to_json(network.facts),
                "params_folded": programs.common.parameters,
                "largest_activation": programs.largest_activation,
            },
            "weights": to_json(network.weights),
            "calibration": {
                "name": calibration.name,
                "images": calibration.used,
                "samples": len(calibration.samples),
                "rejected": calibration.rejected,
                "left_out": calibration.left_out,
                "digest": calibration.digest,
            },
            "rewrites": [{**to_json(outcome), "formats": list(formats)} for outcome, formats in programs.steps],
            "eager": {"sqnr_db": network.oracle.eager_sqnr_db, "seconds": network.oracle.eager_seconds},
            "samples": len(network.check),
            "artifacts": artifacts,
            "environment": environment(request, sources),
            "seconds": round(seconds, 1),
        }
    )
