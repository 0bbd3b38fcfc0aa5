"""The page of a run: one HTML file that opens offline, on a phone, in the dark and on paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edge import textfile
from edge.formats import FORMATS
from edge.report import costs, mixed, plots, summary
from edge.report.summary import Line, Manifest


@dataclass(frozen=True)
class Entry:
    """One artifact of the table: its lines, one a check.

    Attributes:
        lines: at least one.
        ratio: size in multiples of the fp32 artifact of its format, "" where there is none.
    """

    lines: Sequence[Line]
    ratio: str

    @property
    def artifact(self) -> Mapping[str, Any]:
        """Its entry in the manifest."""
        return self.lines[0].artifact

    @property
    def runs_with(self) -> str:
        """What executes it on the device."""
        name = self.artifact["format"]
        return FORMATS[name].runs_with if name in FORMATS else ""

    @property
    def ports(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Inputs and outputs, each with its direction."""
        ends = (("input", "inputs"), ("output", "outputs"))
        return [(direction, port) for direction, end in ends for port in self.artifact.get(end) or ()]


def _entries(manifest: Manifest) -> list[Entry]:
    entries = []
    for _, group in groupby(summary.lines(manifest), key=lambda line: id(line.artifact)):
        lines = tuple(group)
        ratio = summary.size_ratio(lines[0].artifact, manifest)
        entries.append(Entry(lines, "" if ratio is None else f"{ratio:.2f}× fp32"))
    return entries


def _value(value: Any) -> str:
    """A free-form figure of the manifest as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return summary.plain(str(value))


def _digests(manifest: Manifest) -> dict[str, str]:
    """What the run was made of, by name."""
    environment = manifest["environment"]
    found = {
        "Weights": manifest["weights"]["digest"],
        "Calibration": manifest["calibration"]["digest"],
        "The pipeline’s own code": environment.get("sources"),
        **{f"Lock file {name}": digest for name, digest in (environment.get("locks") or {}).items()},
        "All of it": manifest.get("key"),
    }
    return {name: digest for name, digest in found.items() if digest}


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _refusals(refused: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Nodes by the reason they were refused for."""
    by_reason: dict[str, list[str]] = {}
    for refusal in refused:
        by_reason.setdefault(summary.plain(refusal["reason"]), []).append(refusal["node"])
    return by_reason


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("edge", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "bytes": summary.human_bytes,
        "count": summary.human_count,
        "seconds": summary.human_seconds,
        "decibels": summary.decibels,
        "plain": summary.plain,
        "shape": _shape,
        "refusals": _refusals,
        "value": _value,
        "format_title": summary.format_title,
    }
    return environment


def render(manifest: Manifest) -> str:
    """The page as text; the same manifest gives the same bytes."""
    entries = _entries(manifest)
    lines = [line for entry in entries for line in entry.lines]
    files = [entry.lines[0] for entry in entries if entry.artifact.get("bytes")]
    eager_db = (manifest.get("eager") or {}).get("sqnr_db")
    template = _environment().get_template("template.html")
    return template.render(
        manifest=manifest,
        verdict=summary.verdict(manifest),
        outcome=summary.outcome(manifest),
        digests=_digests(manifest),
        entries=entries,
        emitted=[entry for entry in entries if entry.lines[0].emitted],
        remarks=summary.remarks(manifest),
        devices=list(dict.fromkeys(line.device for line in lines)),
        mixed=mixed.mixed_lines(manifest),
        costs=costs.lines(manifest),
        cost_notes=costs.notes(manifest),
        has_agreement=any(line.check.get("host_agreement") for line in lines),
        has_lowering=any(line.check.get("lowering") for line in lines),
        has_classes=any(line.check.get("top1") is not None for line in lines),
        kinds=Counter(next((found for line in lines if (found := plots.kinds(line))), ())),
        error_plots=[plots.errors(lines, eager_db, layout) for layout in plots.LAYOUTS] if lines else [],
        size_plots=[plots.sizes(files, layout) for layout in plots.LAYOUTS] if files else [],
    )


def write(manifest: Manifest, path: Path) -> None:
    """Write the page; an older one stays whole until the new one is.

    Args:
        manifest: of the run, as in ``manifest.json``.
        path: of the page; its folder exists.
    """
    textfile.write(render(manifest), path)
