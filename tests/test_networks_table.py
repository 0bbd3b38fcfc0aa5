"""The README's table of networks is a command's: from manifests, between marks, and nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_manifests import ALL
from typer.testing import CliRunner

from edge import manifest as manifests
from edge.cli import app
from edge.errors import InputError
from edge.report import kept, networks

Manifest = dict[str, Any]


def finish(manifest: Manifest, folder: Path) -> None:
    """Put a finished export into the folder of its target."""
    (folder / manifest["model"]).mkdir(parents=True, exist_ok=True)
    (folder / manifest["model"] / manifests.FILE).write_text(manifests.text(manifest))


def part(
    manifest: Manifest, commit: str, format: str, precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
) -> Manifest:
    """The same network, exported again at another commit, in one format only."""
    return manifest | {
        "environment": manifest["environment"] | {"commit": commit},
        "artifacts": [e for e in manifest["artifacts"] if e["format"] == format and e["precision"] in precisions],
    }


def table(manifest: Manifest) -> str:
    """The table of one export."""
    return networks.table([kept.figures(manifest)])


def commits(table: str) -> dict[str, str]:
    """What stands in the last column, by format."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return {row[networks.HEADINGS.index("format")]: row[-1] for row in rows}


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """A target's folder with finished exports in it, and one that another version made."""
    folder = tmp_path / "dist" / "cortex-a72"
    finish(ALL["passed"](), folder)
    finish(ALL["troubled"]() | {"model": "fasternet_t2"}, folder)
    (folder / "older").mkdir()
    (folder / "older" / manifests.FILE).write_text('{"schema": 1}')
    return folder


def test_a_row_for_each_network_and_format(exports: Path, tmp_path: Path) -> None:
    found = kept.merge(tmp_path / "none", exports)
    rows = [line.split(" | ") for line in networks.table(found.values()).splitlines()]
    assert [len(row) for row in rows] == [len(networks.HEADINGS)] * len(rows)
    assert sorted(found) == ["fasternet_t1", "fasternet_t2"] and rows[0][0] == "| network"
    formats = [row[2] for row in rows[2:]]
    assert formats == ["TVM", "TFLite", "ExecuTorch", "Core ML"] * 2
    named = [row[0] for row in rows[2:] if row[0] != "| "]
    assert len(named) == 2, "a network is named once"


def test_the_share_of_tvms_kernels_that_are_ours() -> None:
    manifest = ALL["passed"]()
    for entry in manifest["artifacts"]:
        if entry["format"] == "tvm":
            entry["notes"] = {"pointwise kernels": 6, "kernels simple": 2, "kernels of TVM's own": "softmax 4 %"}
    (row,) = [line for line in table(manifest).splitlines() if "| TVM |" in line]
    assert "| 75 % |" in row


def test_top1_is_the_hosts_which_runs_all_samples() -> None:
    manifest = ALL["passed"]()
    for entry in manifest["artifacts"]:
        entry["checks"] += [check | {"device": "emulated", "top1": 0.0} for check in entry["checks"]]
    assert not any(" 0 % " in line for line in table(manifest).splitlines())


def test_what_failed_is_marked() -> None:
    assert "**failed**" in table(ALL["troubled"]())
    assert "**failed**" not in table(ALL["passed"]())


def test_figures_stay_when_their_export_is_gone(exports: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    found = kept.merge(folder, exports)
    kept.write(found, folder)
    assert kept.merge(folder, tmp_path / "none") == found
    assert {path.stem for path in folder.glob("*")} == set(found)


def test_a_new_export_takes_the_place_of_the_kept_figures(exports: Path, tmp_path: Path) -> None:
    kept.write(kept.merge(tmp_path, exports), tmp_path / "kept")
    again = ALL["passed"]()
    again["environment"]["commit"] = "fedcba9876"
    finish(again, exports)
    found = kept.merge(tmp_path / "kept", exports)
    assert set(commits(networks.table([found["fasternet_t1"]])).values()) == {"fedcba9876"}


def test_a_network_may_be_exported_one_format_at_a_time(exports: Path, tmp_path: Path) -> None:
    kept.write(kept.merge(tmp_path, exports), tmp_path / "kept")
    finish(part(ALL["passed"](), "fedcba9876", "tflite"), exports)
    found = kept.merge(tmp_path / "kept", exports)
    assert commits(networks.table([found["fasternet_t1"]])) == {
        "TVM": "0123456789",
        "TFLite": "fedcba9876",
        "ExecuTorch": "0123456789",
        "Core ML": "0123456789",
    }


def test_and_one_precision_at_a_time(exports: Path, tmp_path: Path) -> None:
    kept.write(kept.merge(tmp_path, exports), tmp_path / "kept")
    finish(part(ALL["passed"](), "fedcba9876", "tflite", ("int8",)), exports)
    found = kept.merge(tmp_path / "kept", exports)
    assert commits(networks.table([found["fasternet_t1"]]))["TFLite"] == "0123456789 · 0123456789 · fedcba9876"


def test_the_command_writes_the_page_and_keeps_the_figures(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "README.md"
    page.write_text(f"{networks.BEGIN}\n{networks.END}\n")
    command = ["networks", "--target", "cortex-a72", "--page", str(page)]
    assert CliRunner().invoke(app, command).exit_code == 0
    written = page.read_text()
    assert "| fasternet_t1 |" in written and "0123456789" in written
    for manifest in exports.glob("*/*"):
        manifest.unlink()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert page.read_text() == written
    assert json.loads((tmp_path / "docs/networks/cortex-a72/fasternet_t1.json").read_text())["model"] == "fasternet_t1"


def test_an_export_that_is_under_way_does_not_count(exports: Path, tmp_path: Path) -> None:
    (exports / "fasternet_t1").rename(exports / ".fasternet_t1.new")
    assert set(kept.merge(tmp_path / "none", exports)) == {"fasternet_t2"}


def test_kept_figures_that_cannot_be_read_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "fasternet_t1.json").write_text("<<<<<<< HEAD")
    with pytest.raises(InputError, match=r"fasternet_t1\.json cannot be read"):
        kept.merge(tmp_path, tmp_path / "none")


def test_no_figures_at_all_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["networks", "--target", "cortex-a72"])
    assert isinstance(result.exception, InputError) and "make export" in str(result.exception.next_step)


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
