"""Tools come from the distribution's packages into our own folder, and the host stays as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.errors import SetupError
from edge.toolchains import chromium, debian

SMALL = ("libjansson4",)
HOST_FILES = ("/var/lib/apt/lists", "/var/cache/apt", "/var/lib/dpkg", "/var/lib/dpkg/status")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(debian, "TOOLS", tmp_path)
    return tmp_path


def host_state() -> dict[str, float]:
    return {name: Path(name).stat().st_mtime for name in HOST_FILES}


@pytest.mark.slow
def test_packages_are_unpacked_once_and_the_host_is_untouched(tools: Path) -> None:
    before = host_state()
    lines: list[str] = []
    folder = debian.ensure("small", SMALL, lines.append)
    assert list(folder.glob("usr/lib/*/libjansson.so.4"))
    assert host_state() == before
    versions = debian.versions("small")
    assert versions["libjansson4"]
    assert not debian.LEFT_TO_THE_HOST & set(versions)
    assert [path.name for path in tools.iterdir() if path.is_dir()] == ["small"]
    assert lines[-1].startswith("small: ready")

    lines.clear()
    begin = time.monotonic()
    assert debian.ensure("small", SMALL, lines.append) == folder
    assert time.monotonic() - begin < 0.1
    assert not lines


@pytest.mark.slow
def test_half_an_unpacked_folder_is_swept(tools: Path) -> None:
    """What a killed run leaves: its work folder, or a folder without its stamp."""
    leftover = tools / ".small.partial" / "root" / "usr"
    leftover.mkdir(parents=True)
    (tools / "small").mkdir()
    (tools / "small" / "half").touch()
    folder = debian.ensure("small", SMALL, lambda _: None)
    assert not leftover.exists()
    assert not (folder / "half").exists()
    assert debian.is_ready("small", SMALL)


@pytest.mark.slow
def test_other_packages_make_the_folder_anew(tools: Path) -> None:
    debian.ensure("small", SMALL, lambda _: None)
    stamp = tools / "small" / debian.STAMP
    stamp.write_text(json.dumps({"asked": ["another"], "unpacked": {"another": "1"}}))
    debian.ensure("small", SMALL, lambda _: None)
    assert "libjansson4" in debian.versions("small")


@pytest.mark.slow
def test_two_runs_at_once_download_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edge.toolchains import debian\n"
        f"debian.TOOLS = Path({str(tmp_path)!r}); debian.ensure('small', {SMALL!r})"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    logs = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(bool(log) for log in logs) == [False, True], "one works, the other waits and finds it done"


@pytest.mark.slow
def test_packages_of_another_architecture_come_with_their_own_c_library(tools: Path) -> None:
    folder = debian.ensure("small", SMALL, lambda _: None, "arm64")
    assert list(folder.glob("usr/lib/aarch64-linux-gnu/libjansson.so.4"))
    assert (folder / "lib/ld-linux-aarch64.so.1").exists()
    assert "libc6" in debian.versions("small")
    assert debian.is_ready("small", SMALL, "arm64")
    assert not debian.is_ready("small", SMALL), "the host's own are other files"


def test_a_host_without_apt_is_told_so(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(SetupError, match="no apt-get") as caught:
        debian.ensure("small", SMALL, lambda _: None)
    assert "Debian" in caught.value.next_step
    assert not debian.folder("small").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packages", "proxy", "message"),
    [
        (("no-such-package-anywhere",), None, "Unable to locate package"),
        (SMALL, "http://127.0.0.1:9", "could not download libjansson4"),
    ],
)
def test_what_cannot_be_had_is_one_message_and_leaves_nothing(
    tools: Path, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], proxy: str | None, message: str
) -> None:
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(SetupError, match=message) as caught:
        debian.ensure("small", packages, lambda _: None)
    assert "network" in caught.value.next_step
    assert not [path for path in tools.iterdir() if path.is_dir()]


@pytest.mark.slow
def test_a_program_runs_on_its_own_libraries() -> None:
    name = "binutils-aarch64-linux-gnu"
    folder = debian.ensure(name, (name,))
    linker = debian.program(name, "aarch64-linux-gnu-ld")
    assert "aarch64linux" in linker.run("-V").stdout
    listed = linker.run("--version", env={"LD_DEBUG": "libs"}).stderr
    opened = [line.split("calling init: ")[1] for line in listed.splitlines() if "calling init: " in line]
    ours = [path for path in opened if path.startswith(str(folder))]
    assert any("libbfd" in path for path in ours)
    assert all(Path(path).name.startswith(("libc.", "ld-linux", "libdl.")) for path in opened if path not in ours)
    with pytest.raises(SetupError, match="no program another"):
        debian.program(name, "another")


@pytest.mark.slow
def test_chromium_draws_a_page_and_runs_its_script(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><meta charset=utf-8><body style='margin:0;background:#00f'>"
        "<script>document.body.append('width ' + innerWidth)</script>"
    )
    png = tmp_path / "page.png"
    chromium.screenshot(page, png, 320, 200)
    from PIL import Image

    with Image.open(png) as image:
        assert image.size == (320, 200)
        assert image.convert("RGB").getpixel((310, 190)) == (0, 0, 255)
        assert len(image.convert("RGB").getcolors(10_000)) > 2, "there is text, so a font was found"
    assert "width " in chromium.dump_dom(page)


@pytest.mark.slow
def test_chromium_needs_nothing_of_the_host() -> None:
    """Every library it starts with is ours, but for the C library."""
    root = debian.ensure(chromium.NAME, chromium.PACKAGES)
    binary = root / "usr/lib/chromium/chromium"
    environment = {**os.environ, "LD_LIBRARY_PATH": debian.library_path(chromium.NAME)}
    listed = subprocess.run(["ldd", binary], env=environment, text=True, capture_output=True, check=True).stdout
    resolved = [line.split("=>")[1].split()[0] for line in listed.splitlines() if "=>" in line]
    outside = {Path(path).name.split(".so")[0] for path in resolved if not path.startswith(str(root))}
    assert len(resolved) > 50
    assert outside <= {"libc", "libm", "libdl", "libpthread", "librt", "libresolv", "ld-linux-x86-64"}
