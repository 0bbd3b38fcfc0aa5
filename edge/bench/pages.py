"""The bench as files: JSON for other tools, a page and its drawing for people."""

from __future__ import annotations

import json
from pathlib import Path

from edge.bench import plot, quantities, table
from edge.bench.peers import PEERS
from edge.bench.results import Bench
from edge.records import to_json

FOLDER = "bench"
"""Where the files go beside the artifacts."""


def save(bench: Bench, folder: Path) -> Path:
    """Write everything beside the artifacts: ``<folder>/bench/bench.json``, ``.png`` and ``.md``.

    Args:
        bench: what was found.
        folder: of the export.

    Returns:
        The page.
    """
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    _replace(place / f"{FOLDER}.json", json.dumps(to_json(bench), indent=1, ensure_ascii=False) + "\n")
    return write(bench, place, FOLDER)


def write(bench: Bench, folder: Path, name: str) -> Path:
    """Write the drawing ``<name>.png`` and the page ``<name>.md``, each in one step.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture, page = folder / f"{name}.png", folder / f"{name}.md"
    partial = folder / f".{name}.partial.png"
    plot.draw(bench, partial)
    partial.replace(picture)
    _replace(page, markdown(bench, picture.name))
    return page


def docs_name(bench: Bench) -> str:
    """Of the page in the documentation."""
    return f"bench-{bench.target}-{bench.network}"


def _replace(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def markdown(bench: Bench, picture: str) -> str:
    """The page: the drawing, the table, how its figures were made, and the command that makes it again."""
    headings, remarks = table.headings(bench), table.remarks(bench)
    taking_part = {row.format for row in bench.rows}
    lines = [
        f"# {bench.network} on {bench.title}: our artifacts and the peers",
        "",
        f"![{quantities.of(bench).drawn}]({picture})",
        "",
        _row(headings),
        _row(("---", "---", *["---:"] * (len(headings) - 2))),
        *(_row(table.cells(bench, row)) for row in bench.rows),
        "",
        *(f"- {row.runtime}, {row.precision}: {row.status}: {reason}" for row, reason in remarks),
        *([""] if remarks else []),
        f"One inference of one image after a warm-up, on one thread of {bench.core}. "
        f"{bench.macs / 1e6:,.1f} M multiply-adds; weights: {bench.weights}. Each artifact was first run on "
        f"{bench.samples} images and held against the float64 network; only what passes its gate is measured. "
        "SQNR is the worst image's.",
        "",
        *(f"- {sentence}" for sentence in bench.method),
        "- TVM's kernels are ours, built by this project; all others are peers', XNNPACK inside our own artifacts.",
        *(f"- {peer.note}" for peer in PEERS.values() if peer.note and peer.name in taking_part),
        "",
        f"Made by `{bench.command}`.",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
