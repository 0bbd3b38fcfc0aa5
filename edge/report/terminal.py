"""The result of a run on the terminal, in 100 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from edge.report import summary
from edge.report.summary import Figure, Manifest, Status, verdict

__all__ = ["table", "verdict"]

STYLES: dict[Status, str] = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def _figure(figure: Figure) -> Text:
    return Text(figure.text, style=STYLES["failed"] if figure.missed else "")


def _sqnr(figure: Figure) -> Text:
    return _figure(figure) + Text(f" {figure.gate.removesuffix(' dB')}" if figure.gate else "", style="dim")


def _reasons(manifest: Manifest) -> Text:
    """One paragraph for each check that needs words, after the table."""
    return Text("\n").join(
        Text.assemble((line.status, STYLES[line.status]), f"  {line.label}: {line.reason}")
        for line in summary.remarks(manifest)
    )


def table(manifest: Manifest) -> Table:
    """The artifacts with size, figures and status; below them, the reason of every one that failed or was skipped."""
    result = Table(
        title=Text(f"{manifest['model']} → {manifest['profile']['title']}", style="bold"),
        title_justify="left",
        caption=_reasons(manifest),
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    result.add_column("artifact", overflow="fold")
    lines = summary.lines(manifest)
    compared = any(line.check.get("host_agreement") for line in lines)
    for heading in ("size", "SQNR and gate", "max rel", "top-1", *(["same bits"] if compared else []), "time"):
        result.add_column(heading, justify="right", no_wrap=True)
    result.add_column("status", no_wrap=True)
    for line in lines:
        result.add_row(
            Text(line.label) if line.first else Text(f"  on {line.device}", style="dim"),
            line.size if line.first else "",
            _sqnr(line.sqnr),
            _figure(line.max_rel),
            _figure(line.top1),
            *([_figure(line.same_bits)] if compared else []),
            _figure(line.seconds),
            Text(line.status, style=STYLES[line.status]),
        )
    return result
