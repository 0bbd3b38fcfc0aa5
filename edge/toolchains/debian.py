"""Programs from the distribution's packages, unpacked into a private folder: nothing is installed, no root is needed.

apt downloads what the host's own package sources offer, checked with the host's own keys, but with a state of its own:
the host's lists, caches and database stay as they are. That state starts empty, so the download is the whole closure of
dependencies, whatever the host happens to have installed: two hosts on the same sources get the same tools, and none
breaks when the host loses a package. Two things stay the host's: essential packages, which every Debian host has, and
the C library, which must match the loader that starts every program. Packages of another architecture, which run in an
emulator, get all of it: the host has nothing to lend them.

Standard library only: ``make`` may run it before anything is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import SetupError
from edge.toolchains.environments import Progress, exclusive
from edge.toolchains.places import TOOLS

STAMP = "packages.json"
LEFT_TO_THE_HOST = frozenset({"libc6", "libc-bin"})


def print_progress(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Program:
    """An unpacked program.

    Attributes:
        path: of the executable.
        environment: variables it needs on top of the caller's: where its shared libraries are.
    """

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end with stdout and stderr as text; ``options`` go to ``subprocess.run``."""
        environment = {**os.environ, **self.environment, **options.pop("env", {})}
        command = [str(self.path), *map(str, arguments)]
        return subprocess.run(command, env=environment, text=True, capture_output=True, check=False, **options)


def folder(name: str) -> Path:
    """Where the tools of that name are; the folder may not exist yet, see ``ensure``."""
    return TOOLS / name


def versions(name: str) -> dict[str, str]:
    """Version of every unpacked package, by name; empty before ``ensure``."""
    return _stamp(name).get("unpacked", {})


def unpacked(names: Iterable[str]) -> dict[str, str]:
    """Version of every package that was asked for by name for these tools, as far as they are here."""
    stamps = [_stamp(name) for name in names]
    return {package: stamp["unpacked"][package] for stamp in stamps if stamp for package in stamp["asked"]}


def is_ready(name: str, packages: tuple[str, ...], architecture: str = "") -> bool:
    """Whether the folder is whole and was made for these packages."""
    stamp = _stamp(name)
    return stamp.get("asked") == sorted(packages) and stamp.get("architecture", "") == architecture


def ensure(name: str, packages: tuple[str, ...], progress: Progress = print_progress, architecture: str = "") -> Path:
    """Unpack the packages and all they depend on, unless they are there already.

    The folder gets its name last, by a rename, so what an interrupted run leaves is never mistaken for a tool.

    Args:
        name: of the folder, and for people.
        packages: Debian's names.
        progress: called with a line of text as the work goes on.
        architecture: Debian's name of the packages' architecture; empty for the host's.

    Returns:
        The folder; see ``program``.

    Raises:
        SetupError: not a Debian host, no network, or no such package.
    """
    if not is_ready(name, packages, architecture):
        with exclusive(TOOLS / f".{name}.lock"):
            if not is_ready(name, packages, architecture):
                _make(name, packages, progress, architecture)
    return folder(name)


def program(name: str, executable: str) -> Program:
    """An executable of the tools of that name, which ``ensure`` has unpacked.

    Raises:
        SetupError: the packages hold no such executable.
    """
    place = folder(name)
    for binaries in ("usr/bin", "usr/sbin"):
        path = place / binaries / executable
        if path.is_file():
            return Program(path, {"LD_LIBRARY_PATH": library_path(name)})
    raise SetupError(
        f"the packages of {name} hold no program {executable}",
        stage="setup",
        next_step=f"remove {place}, so that it is unpacked again, or name another package",
    )


def library_path(name: str) -> str:
    """LD_LIBRARY_PATH into the folder."""
    return ":".join(str(folder(name) / part) for part in _stamp(name)["libraries"])


def _stamp(name: str) -> dict[str, Any]:
    """What the folder holds; empty where it is missing or not whole."""
    stamp = folder(name) / STAMP
    return json.loads(stamp.read_text(encoding="utf-8")) if stamp.is_file() else {}


def _library_folders(root: Path) -> list[str]:
    """Every folder with shared libraries, outermost first; inner ones are otherwise sought at the host's own paths."""
    folders = {path.parent.relative_to(root) for path in (root / "usr/lib").rglob("lib*.so*")}
    return [str(path) for path in sorted(folders, key=lambda path: (len(path.parts), path))]


def _make(name: str, packages: tuple[str, ...], progress: Progress, architecture: str) -> None:
    missing = [tool for tool in ("apt-get", "dpkg-deb", "tar") if shutil.which(tool) is None]
    if missing:
        raise SetupError(
            f"{name} comes from Debian's packages ({', '.join(packages)}); this host has no {', no '.join(missing)}",
            stage="setup",
            next_step="run on Debian or a system derived from it",
        )
    work = TOOLS / f".{name}.partial"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        archives = _download(name, packages, work / "apt", progress, architecture)
        unpacked = _unpack(name, archives, work / "root", progress, whole=bool(architecture))
        libraries = _library_folders(work / "root")
        stamp = {
            "asked": sorted(packages),
            "architecture": architecture,
            "unpacked": unpacked,
            "libraries": libraries,
        }
        (work / "root" / STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        shutil.rmtree(folder(name), ignore_errors=True)
        (work / "root").rename(folder(name))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    progress(f"{name}: ready, {len(unpacked)} packages")


def _download(name: str, packages: tuple[str, ...], state: Path, progress: Progress, architecture: str) -> list[Path]:
    """The packages and their dependencies as files, through an apt state of their own."""
    archives = state / "cache" / "archives"
    (state / "lists" / "partial").mkdir(parents=True)
    (archives / "partial").mkdir(parents=True)
    (state / "status").touch()
    # Read after the host's own settings, which may name a proxy; the hooks among them would change the host.
    settings = state / "apt.conf"
    foreign = f'APT::Architecture "{architecture}"; #clear APT::Architectures; APT::Architectures:: "{architecture}";'
    settings.write_text(
        f"""
        Dir::State "{state}";
        Dir::State::status "{state}/status";
        Dir::State::lists "{state}/lists";
        Dir::Cache "{state}/cache";
        Dir::Cache::archives "{archives}";
        Dir::Log "{state}";
        {foreign if architecture else ""}
        APT::Sandbox::User "";
        APT::Install-Recommends "false";
        Acquire::Languages "none";
        Acquire::Retries "3";
        #clear APT::Update::Pre-Invoke;
        #clear APT::Update::Post-Invoke;
        #clear APT::Update::Post-Invoke-Success;
        #clear DPkg::Post-Invoke;
        """,
        encoding="utf-8",
    )
    progress(f"{name}: asking the package sources of this host")
    update = _apt(settings, "update")  # One source out of reach is no failure yet: the others may have the packages.
    progress(f"{name}: downloading {', '.join(packages)} and what they need")
    install = _apt(settings, "install", "--download-only", "--assume-yes", *packages)
    if install.returncode:
        lines = [
            line for line in (update.stderr + install.stderr).splitlines() if line.startswith(("E:", "W:", "Err:"))
        ]
        raise SetupError(
            f"apt-get could not download {', '.join(packages)} for {name}: {' '.join(lines)[:500]}",
            stage="setup",
            next_step="check the network and the package sources: apt-get update must work on this host",
        )
    return sorted(archives.glob("*.deb"))


def _apt(settings: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "--config-file", str(settings), "--quiet", *arguments]
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)


def _unpack(name: str, archives: list[Path], root: Path, progress: Progress, *, whole: bool) -> dict[str, str]:
    """Unpack everything, or all but what stays the host's; versions by package."""
    # Debian's merged /usr: a package that still ships /lib/x must land beside one that ships /usr/lib/x.
    for part in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / part).mkdir(parents=True)
        (root / part).symlink_to(f"usr/{part}")
    unpacked: dict[str, str] = {}
    for index, archive in enumerate(archives, 1):
        fields = subprocess.run(
            ["dpkg-deb", "--show", "--showformat=${Package}\t${Version}\t${Essential}", str(archive)],
            text=True,
            stdout=subprocess.PIPE,
            check=True,
        )
        package, version, essential = fields.stdout.split("\t")
        if not whole and (essential == "yes" or package in LEFT_TO_THE_HOST):
            continue
        _extract(archive, root)
        unpacked[package] = version
        if index % 50 == 0:
            progress(f"{name}: {index} of {len(archives)} packages unpacked")
    return dict(sorted(unpacked.items()))


def _extract(archive: Path, root: Path) -> None:
    stream = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE)
    tar = ["tar", "--extract", "--keep-directory-symlink", "--no-same-owner", "--no-same-permissions", "-C", str(root)]
    extracted = subprocess.run(tar, stdin=stream.stdout, stderr=subprocess.PIPE, text=True, check=False)
    if stream.wait() or extracted.returncode:
        raise SetupError(
            f"could not unpack {archive.name}: {extracted.stderr.strip()[:300]}",
            stage="setup",
            next_step="check that the disk has room, then run again",
        )
