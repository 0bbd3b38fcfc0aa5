"""What the page and the terminal both say, derived once: the verdict, an artifact's status, figures as text.

Figures are rounded against the artifact: one that is shown on the right side of its gate is on the right side of it.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from pathlib import PurePosixPath
from typing import Any, Literal

from edge.formats import FORMATS
from edge.manifest import CAP_DB, SAMPLE_KINDS

Manifest = Mapping[str, Any]
Status = Literal["passed", "failed", "skipped"]

ABSENT = "–"
"""Shown where there is no figure."""


def plain(text: str) -> str:
    """A tool's output as text that a page and a terminal can show: no escape sequences, no control characters."""
    without_escapes = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])", "", text)
    return "".join(c if c == "\n" or c.isprintable() else " " * c.isspace() for c in without_escapes).strip()


def _exactly(value: float) -> Decimal:
    return Decimal(repr(float(value)))


def _floor(value: Decimal, places: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-places), ROUND_FLOOR)


def _ceiling(value: float, digits: int) -> Decimal:
    return Context(prec=digits, rounding=ROUND_CEILING).plus(_exactly(value))


def decibels(value: float) -> str:
    """One decimal, rounded down; the manifest's caps in words."""
    if abs(value) >= CAP_DB:
        return "exact" if value > 0 else "not finite"
    return f"{_floor(_exactly(value), 1)} dB".replace("-", "−")


def percent(share: float) -> str:
    """Two decimals, rounded down, so that only all is 100 %."""
    return f"{_floor(_exactly(share) * 100, 2).normalize():f} %"


def relative(error: float) -> str:
    """Two digits, rounded up."""
    return f"{_ceiling(error, 2):.1e}" if error else "0"


def multiple(value: float) -> str:
    """Two digits, rounded up."""
    return f"{_ceiling(value, 2):f}×"


_GATES: dict[str, Callable[[float], str]] = {
    "sqnr_db": lambda least: f"≥ {least:g} dB",
    "max_rel": lambda most: f"≤ {most:g}".replace("e-0", "e-"),
    "top1": lambda least: f"≥ {least * 100:g} %",
    "rms_vs_eager": lambda most: f"≤ {most:g}×",
}
"""The thresholds a check may have, as text."""


def human_bytes(size: float) -> str:
    """Three digits and a decimal unit: 30.4 MB."""
    units = iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    while size >= 999.5 and unit != "GB":
        size, unit = size / 1000, next(units)
    return f"{size:.3g} {unit}"


def human_seconds(seconds: float) -> str:
    """Milliseconds below one second, minutes from two: 12 ms, 93.1 s, 4 min 10 s."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def human_count(count: int) -> str:
    """Three digits and a unit: 7.6 million."""
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,}"


@dataclass(frozen=True)
class Figure:
    """One measured figure as text.

    Attributes:
        text: the figure.
        gate: what it must be, "" if nothing is asked.
        missed: it is not.
    """

    text: str = ABSENT
    gate: str = ""
    missed: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the table of artifacts: one artifact on one device.

    Attributes:
        artifact: its entry in the manifest.
        check: of that artifact.
        short: the file's name without the network's, or what was to be made.
        status: of this check; an artifact that nothing checked is skipped.
        reason: why it failed or was skipped, or what to know though it passed; "" if there is nothing to say.
        first: of the artifact's checks.
    """

    artifact: Mapping[str, Any]
    check: Mapping[str, Any]
    short: str
    status: Status
    reason: str
    first: bool = True

    @property
    def emitted(self) -> bool:
        """There is a file."""
        return self.artifact["file"] is not None

    @property
    def precision(self) -> str:
        """Of the artifact."""
        return str(self.artifact["precision"])

    @property
    def label(self) -> str:
        """The short name, and the device if it is not the host."""
        return self.short if self.device == "host" else f"{self.short} on {self.device}"

    @property
    def device(self) -> str:
        """Where it was checked."""
        return plain(self.check.get("device") or "host")

    @property
    def ran(self) -> str:
        """How it multiplied, where that was counted: "fp32 FMA", "integer multiply"."""
        return str((self.check.get("executed") or {}).get("ran", ""))

    @property
    def size(self) -> str:
        """Of the file, or of the files of a package."""
        size = self.artifact.get("bytes")
        return ABSENT if size is None else human_bytes(size)

    @property
    def sqnr(self) -> Figure:
        """Of the worst sample and output, against the float64 network."""
        return self._figure(self.check.get("sqnr_db"), "sqnr_db", decibels)

    @property
    def max_rel(self) -> Figure:
        """Largest error, relative to the output's largest magnitude."""
        return self._figure(self.check.get("max_rel"), "max_rel", relative)

    @property
    def top1(self) -> Figure:
        """Samples with the float64 network's class; absent where the network has no classes.

        A share of all, and a count where a slow device ran a few: none of one is not 0 % of the network.
        """
        ran = len((self.check.get("samples") or {}).get("sqnr_db", SAMPLE_KINDS))
        few = ran < len(SAMPLE_KINDS)
        return self._figure(
            self.check.get("top1"), "top1", lambda share: f"{round(share * ran)} of {ran}" if few else percent(share)
        )

    @property
    def rms_vs_eager(self) -> Figure:
        """RMS error in multiples of eager PyTorch's own in float32."""
        return self._figure(self.check.get("rms_vs_eager"), "rms_vs_eager", multiple)

    @property
    def quantisation(self) -> Figure:
        """SQNR of the quantisation simulation against the float64 network: what the precision itself costs."""
        return self._figure(self._lowering.get("quantisation_sqnr_db"), None, decibels)

    @property
    def lowering(self) -> Figure:
        """SQNR of the artifact against the quantisation simulation: what the conversion added."""
        value, margin = self._lowering.get("sqnr_db"), (self.check.get("gate") or {}).get("lowering_margin_db")
        figure = self._figure(value, None, decibels)
        if value is None or margin is None:
            return figure
        least = self._lowering["quantisation_sqnr_db"] - margin
        return Figure(figure.text, f"≥ {decibels(least)}", missed=value < least)

    @property
    def same_bits(self) -> Figure:
        """Share of the output elements with the same bits as on the host."""
        agreement = self.check.get("host_agreement")
        return Figure(percent(agreement["identical"])) if agreement else Figure()

    @property
    def seconds(self) -> Figure:
        """Of one inference on the device that checked; the emulator's are not kept."""
        seconds = self.check.get("seconds")
        return Figure() if seconds is None else Figure(human_seconds(seconds))

    @property
    def spread(self) -> str:
        """How far apart the timed inferences were, where there were several: middle four fifths over the median."""
        repeats = sorted(self.check.get("repeats") or ())
        if len(repeats) < 2:
            return ""
        tenth = len(repeats) // 10
        between = repeats[-1 - tenth] - repeats[tenth]
        return f"± {between / 2 / statistics.median(repeats):.1%} over {len(repeats)}".replace("%", " %")

    @property
    def _lowering(self) -> Mapping[str, Any]:
        return self.check.get("lowering") or {}

    def _figure(self, value: float | None, gate: str | None, text: Callable[[float], str]) -> Figure:
        if value is None:
            return Figure()
        threshold = (self.check.get("gate") or {}).get(gate)
        if gate is None or threshold is None:
            return Figure(text(value))
        asked = _GATES[gate](threshold)
        met = value >= threshold if asked.startswith("≥") else value <= threshold
        return Figure(text(value), asked, missed=not met)


def _lines_of(artifact: Mapping[str, Any], model: str) -> Iterable[Line]:
    short = plain(artifact["file"] or f"{artifact['format']} {artifact['precision']}").removeprefix(f"{model}.")
    checks = artifact.get("checks") or [{"status": "skipped", "reason": "nothing checked it"}]
    for index, check in enumerate(checks):
        reason = plain(check.get("reason") or "")
        if not reason and check["status"] != "passed":
            reason = "no reason was recorded"
        yield Line(artifact, check, short, check["status"], reason, index == 0)


def lines(manifest: Manifest) -> list[Line]:
    """The table of artifacts, in the manifest's order; an artifact checked on several devices has a line for each."""
    return [line for artifact in manifest["artifacts"] for line in _lines_of(artifact, manifest["model"])]


def status(artifact: Mapping[str, Any]) -> Status:
    """Failed if a check failed, passed if none did and one passed, skipped if nothing could be checked."""
    found = {check["status"] for check in artifact.get("checks") or ()}
    return "failed" if "failed" in found else "passed" if "passed" in found else "skipped"


def outcome(manifest: Manifest) -> Status:
    """Of the whole run: passed only if there are artifacts and every check of every one passed."""
    found = {line.status for line in lines(manifest)}
    return "failed" if "failed" in found or not found else "skipped" if "skipped" in found else "passed"


def verdict(manifest: Manifest) -> str:
    """One sentence: how many artifacts hold, and how many failed or were skipped."""
    statuses = [status(artifact) for artifact in manifest["artifacts"]]
    if not statuses:
        return "No artifact was made"
    held = statuses.count("passed")
    parts = [f"{held} of {len(statuses)} {'artifact' if len(statuses) == 1 else 'artifacts'} {_verb(held)}"]
    parts += [f"{count} {what}" for what in ("failed", "skipped") if (count := statuses.count(what))]
    unchecked = sum(line.status == "skipped" for line in lines(manifest) if status(line.artifact) != "skipped")
    if unchecked:
        parts.append(f"{unchecked} further {'check' if unchecked == 1 else 'checks'} skipped")
    return "; ".join(parts)


def _verb(count: int) -> str:
    return "holds" if count == 1 else "hold"


def remarks(manifest: Manifest) -> list[Line]:
    """Lines that need words: failed first, then skipped, then those that passed with something to know."""
    order: dict[Status, int] = {"failed": 0, "skipped": 1, "passed": 2}
    return sorted((line for line in lines(manifest) if line.reason), key=lambda line: order[line.status])


def size_ratio(artifact: Mapping[str, Any], manifest: Manifest) -> float | None:
    """Size in multiples of the fp32 artifact of the same format and kind of file; None if there is none."""

    def kind(other: Mapping[str, Any]) -> tuple[str, str]:
        return other["format"], PurePosixPath(other["file"]).suffix

    if artifact["precision"] == "fp32" or not artifact.get("bytes"):
        return None
    for other in manifest["artifacts"]:
        if other["precision"] == "fp32" and other.get("bytes") and kind(other) == kind(artifact):
            return float(artifact["bytes"] / other["bytes"])
    return None


def format_title(artifact: Mapping[str, Any]) -> str:
    """The format's name for people."""
    name = str(artifact["format"])
    return FORMATS[name].title if name in FORMATS else name
