"""``edge verify``: check what an earlier export made, on any device, against the vectors that lie beside it."""

from __future__ import annotations

from pathlib import Path

from edge.devices import Device, closing_all, slug, takers
from edge.devices.find import find
from edge.finished import Finished, opened
from edge.manifest import Manifest, check_entry, emitted_file
from edge.parity.vectors import Vectors
from edge.progress import Reporter
from edge.stages.verify import Subject, verify

THREADS = 1


def verify_again(folder: Path, names: tuple[str, ...], reporter: Reporter) -> Manifest:
    """Check every artifact on every named device that takes it; an earlier check on the same device is replaced.

    Args:
        folder: of a finished export.
        names: of the devices; empty for the host and the target's.
        reporter: shows progress.

    Returns:
        The manifest, as written.

    Raises:
        EdgeError: the folder or a device's name cannot be used.
    """
    with opened(folder, reporter) as finished:
        vectors = finished.vectors("verify")
        devices = [find(name, finished.target) for name in names or ("host", *finished.target.checked_on)]
        with reporter.running(), closing_all(devices):
            for entry in finished.artifacts:
                for device in takers(devices, emitted_file(entry)):
                    _check(finished, entry, device, vectors, reporter)
    return finished.manifest


def _check(finished: Finished, entry: Manifest, device: Device, vectors: Vectors, reporter: Reporter) -> None:
    """Check one artifact on one device; the entry gets the result."""
    host = entry["host_outputs"] if device.name != "host" else None
    subject = Subject(
        emitted_file(entry),
        finished.folder / entry["file"],
        finished.target,
        entry["precision"],
        finished.manifest["network"]["largest_activation"],
        finished.manifest["network"]["macs"],
        finished.folder / host if host else None,
    )
    with reporter.lane(entry["file"]) as step:
        check, _ = verify(subject, vectors, device, finished.work / entry["file"] / slug(device.name), THREADS, step)
    reporter.note(f"{entry['file']} on {device.name}: {check.verdict}")
    others = [other for other in entry["checks"] if other["device"] not in (device.name, "")]
    entry["checks"] = [*others, check_entry(check)]
