"""The README's table of networks is a command's: from manifests, between marks, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_manifests import ALL

from edge import manifest as manifests
from edge.errors import InputError
from edge.report import networks


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """A target's folder with finished exports in it, and one that another version made."""
    for name in ("passed", "troubled"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / manifests.FILE).write_text(manifests.text(ALL[name]()))
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / manifests.FILE).write_text('{"schema": 1}')
    return tmp_path


def test_a_row_for_each_network_and_format(exports: Path) -> None:
    found = networks.finished(exports)
    rows = [line.split(" | ") for line in networks.table(found).splitlines()]
    assert [len(row) for row in rows] == [len(networks.HEADINGS)] * len(rows)
    assert len(found) == 2 and rows[0][0] == "| network"
    formats = [row[2] for row in rows[2:]]
    assert formats == ["TVM", "TFLite", "ExecuTorch", "Core ML"] * 2
    named = [row[0] for row in rows[2:] if row[0] != "| "]
    assert len(named) == 2, "a network is named once"


def test_the_share_of_tvms_kernels_that_are_ours() -> None:
    manifest = ALL["passed"]()
    for entry in manifest["artifacts"]:
        if entry["format"] == "tvm":
            entry["notes"] = {"pointwise kernels": 6, "kernels simple": 2, "kernels of TVM's own": "softmax 4 %"}
    (row,) = [line for line in networks.table([manifest]).splitlines() if "| TVM |" in line]
    assert "| 75 % |" in row


def test_what_failed_is_marked(exports: Path) -> None:
    table = networks.table(networks.finished(exports))
    assert "**failed**" in table
    assert "**failed**" not in networks.table([ALL["passed"]()])


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n\n{networks.BEGIN}\nold\n{networks.END}\n\nafter\n")
    networks.put("new", page)
    assert page.read_text() == f"before\n\n{networks.BEGIN}\nnew\n{networks.END}\n\nafter\n"


def test_a_page_without_marks_stays_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("nothing for tables")
    with pytest.raises(InputError, match="no place"):
        networks.put("new", page)
    assert page.read_text() == "nothing for tables"


def test_no_finished_export_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make export"):
        networks.finished(tmp_path)
