"""The wheels for 64-bit Arm: the versions of the host's, no other bytes, and only what a device needs of them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import elf
import pytest

from edge.errors import SetupError
from edge.toolchains import environments, wheels
from edge.toolchains.places import REQUIREMENTS

FOREIGN = sorted(lock.stem for lock in REQUIREMENTS.glob("*.lock") if wheels.is_foreign(lock.stem))


def locked(name: str) -> dict[str, str]:
    """Version by distribution."""
    lines = environments.lock_file(name).read_text().splitlines()
    return dict(line.split(" ")[0].split("==") for line in lines if "==" in line)


def wheel_of(place: Path, *members: str) -> Path:
    path = place / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, member)
    return path


@pytest.mark.parametrize("name", FOREIGN)
def test_what_the_host_runs_too_has_the_hosts_version(name: str) -> None:
    host, arm = locked("base"), locked(name)
    assert {package: host.get(package, version) for package, version in arm.items()} == arm


def test_every_runtime_of_a_device_is_one_of_the_hosts() -> None:
    assert locked("aarch64").keys() <= locked("base").keys()


@pytest.mark.parametrize("name", FOREIGN)
def test_every_file_is_locked_by_its_hash(name: str) -> None:
    lines = environments.lock_file(name).read_text().splitlines()[1:]
    assert lines
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def test_only_the_members_asked_for_are_unpacked(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path, "a/lib/runtime.so", "a/lib/compiler.so", "a/include/a/deep.h")
    wheels._unpack(wheel, ["a/lib/r*.so", "a/include/*"], tmp_path / "root")
    unpacked = {str(p.relative_to(tmp_path / "root")) for p in (tmp_path / "root").rglob("*.*")}
    assert unpacked == {"a/lib/runtime.so", "a/include/a/deep.h"}


def test_a_wheel_laid_out_anew_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="nothing in a-1-py3"):
        wheels._unpack(wheel_of(tmp_path, "a/libs/runtime.so"), ["a/lib/*"], tmp_path / "root")


@pytest.mark.slow
def test_the_runtimes_libraries_are_for_arm_and_the_compiler_stays_behind() -> None:
    folder = wheels.ensure("aarch64")
    libraries = {path.name: path for path in folder.rglob("*.so")}
    assert {"libtvm_runtime.so", "libtvm_ffi.so", "libexecutorch.so", "libLiteRt.so"} <= libraries.keys()
    assert "libtvm_compiler.so" not in libraries
    assert {elf.read(path).machine for path in libraries.values()} == {"aarch64"}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 40e6


@pytest.mark.slow
def test_other_bytes_than_the_locked_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = next(line for line in environments.lock_file("aarch64").read_text().splitlines() if "tvm-ffi" in line)
    (tmp_path / "forged.lock").write_text(line[:-8] + "00000000\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(wheels, "WHEELS", tmp_path / "wheels")
    with pytest.raises(SetupError, match="could not download"):
        wheels.ensure("forged", lambda line: None)
    assert not wheels.folder("forged").exists()
    assert not wheels.is_ready("forged")


def test_without_a_network_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wheels, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr(wheels, "CACHE", tmp_path / "cache")
    for variable in ("PIP_CONFIG_FILE", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(variable, "/dev/null" if variable.endswith("FILE") else "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SetupError) as caught:
        wheels.ensure("aarch64", lambda line: None)
    assert "network" in caught.value.next_step
    assert not wheels.folder("aarch64").exists()
