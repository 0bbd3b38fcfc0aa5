"""Environments share on the disk what they both hold, and nothing else."""

from __future__ import annotations

from pathlib import Path

from edge.toolchains.shared_files import SMALLEST, share

LARGE = bytes(range(256)) * (SMALLEST // 256)


def environment(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (folder / "lib").mkdir(parents=True, exist_ok=True)
        (folder / "lib" / name).write_bytes(content)
    return folder


def is_shared(name: str, mine: Path, other: Path) -> bool:
    return (mine / "lib" / name).samefile(other / "lib" / name)


def test_what_two_environments_hold_is_on_the_disk_once(tmp_path: Path) -> None:
    changed = LARGE[:-1] + b"x"
    base = environment(tmp_path / "base", torch=LARGE, numpy=LARGE, small=b"1")
    other = environment(tmp_path / "other", torch=LARGE, numpy=changed, small=b"1", own=LARGE)
    assert share(other, [base]) == len(LARGE)
    assert is_shared("torch", other, base)
    assert not is_shared("numpy", other, base), "another version, of the same size"
    assert not is_shared("small", other, base)
    assert (other / "lib" / "numpy").read_bytes() == changed
    assert sorted(file.name for file in (other / "lib").iterdir()) == ["numpy", "own", "small", "torch"]
    assert share(other, [base]) == 0, "nothing is left to save"


def test_replacing_a_shared_file_changes_one_environment(tmp_path: Path) -> None:
    """As pip does it: the old file is removed, and a new one is written."""
    base = environment(tmp_path / "base", torch=LARGE)
    other = environment(tmp_path / "other", torch=LARGE)
    share(other, [base])
    (other / "lib" / "torch").unlink()
    environment(other, torch=LARGE[::-1])
    assert (base / "lib" / "torch").read_bytes() == LARGE


def test_links_are_left_alone(tmp_path: Path) -> None:
    base = environment(tmp_path / "base", torch=LARGE)
    other = environment(tmp_path / "other")
    (other / "lib").mkdir(parents=True)
    (other / "lib" / "torch").symlink_to(base / "lib" / "torch")
    assert share(other, [base]) == 0
    assert (other / "lib" / "torch").is_symlink()
