"""Headless Chromium from Debian's packages: opens a page of ours as a person's browser would, without a network."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from edge.errors import SetupError
from edge.toolchains import debian

NAME = "chromium"
PACKAGES = ("chromium", "fonts-dejavu-core")
LIMIT_S = 120
# Without a sandbox: it reads only our own pages, and a container offers none. The rest keeps it from calling home.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>
"""


def screenshot(page: Path, png: Path, width: int, height: int) -> None:
    """Write what a window of width x height pixels shows of an HTML file.

    Raises:
        SetupError: Chromium cannot be had, or did not draw the page.
    """
    png.unlink(missing_ok=True)
    log = _open(page, f"--screenshot={png.resolve()}", f"--window-size={width},{height}").stderr
    if not png.is_file():
        raise _failure(page, log)


def dump_dom(page: Path) -> str:
    """The document of an HTML file after its scripts have run, as HTML.

    Raises:
        SetupError: Chromium cannot be had, or did not open the page.
    """
    opened = _open(page, "--dump-dom")
    if "<html" not in opened.stdout:
        raise _failure(page, opened.stderr)
    return opened.stdout


def _open(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    root = debian.ensure(NAME, PACKAGES)
    # Debian's usr/bin/chromium is a shell script with absolute paths; this is the program behind it.
    binary = root / "usr/lib/chromium/chromium"
    with tempfile.TemporaryDirectory(prefix="edge-chromium-") as scratch:
        fonts = Path(scratch) / "fonts.conf"
        fonts.write_text(FONTS.format(fonts=root / "usr/share/fonts", cache=Path(scratch) / "fonts"), encoding="utf-8")
        environment = {
            "LD_LIBRARY_PATH": debian.library_path(NAME),
            "FONTCONFIG_FILE": str(fonts),
            "HOME": scratch,
            "XDG_CONFIG_HOME": scratch,
            "XDG_CACHE_HOME": scratch,
        }
        chromium = debian.Program(binary, environment)
        url = page.resolve().as_uri()
        try:
            return chromium.run(*OPTIONS, *options, f"--user-data-dir={scratch}/profile", url, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise _failure(page, f"no answer within {LIMIT_S} s") from None


def _failure(page: Path, log: str) -> SetupError:
    last = " ".join(log.strip().splitlines()[-2:])
    return SetupError(
        f"Chromium did not open {page.name}: {last[:300]}",
        stage="setup",
        next_step=f"remove {debian.folder(NAME)}, so that it is unpacked again",
    )
