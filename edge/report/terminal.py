"""The result of a run on the terminal, in 100 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from edge.report import costs, mixed, summary
from edge.report.summary import Figure, Manifest, Status, verdict

__all__ = ["cost_tables", "table", "verdict"]

STYLES: dict[Status, str] = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def _figure(figure: Figure) -> Text:
    return Text(figure.text, style=STYLES["failed"] if figure.missed else "")


def _sqnr(figure: Figure) -> Text:
    return _figure(figure) + Text(f" {figure.gate.removesuffix(' dB')}" if figure.gate else "", style="dim")


def _reasons(manifest: Manifest) -> Text:
    """One paragraph for each check that needs words, and for each artifact of mixed precision, after the table."""
    checks = [
        Text.assemble((line.status, STYLES[line.status]), f"  {line.label}: {line.reason}")
        for line in summary.remarks(manifest)
    ]
    artifacts = [
        Text.assemble(("mixed", "dim"), f"   {line.short}: {line.sentence}") for line in mixed.mixed_lines(manifest)
    ]
    return Text("\n").join([*checks, *artifacts])


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


def cost_tables(manifest: Manifest, counted: list[str]) -> list[Table]:
    """What each artifact costs on the emulated core, and the hottest code of each that was just counted."""
    title = f"{manifest['model']} on the emulated core of {manifest['profile']['title']}: one warm inference"
    overview = _plain_table(title, ("artifact", "instructions", "vector FMA", "modelled cycles", "of the floor", "ran"))
    overview.caption = Text("\n").join(Text(note, style="dim") for note in costs.notes(manifest))
    tables = [overview]
    for line in costs.lines(manifest):
        overview.add_row(line.short, line.instructions, line.vector_fma, line.cycles, line.share, line.ran)
        if f"{manifest['model']}.{line.short}" in counted:
            hot = _plain_table(f"{line.short}: the hottest code", ("share", "cycles", "executions", "where"))
            for spot in line.spots:
                hot.add_row(spot.share, spot.cycles, spot.executions, spot.operator or spot.where)
            tables.append(hot)
    return tables


def _plain_table(title: str, columns: tuple[str, ...]) -> Table:
    """A table whose first and last columns are words and whose others are figures."""
    result = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for index, column in enumerate(columns):
        number = 0 < index < len(columns) - 1
        result.add_column(column, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return result
