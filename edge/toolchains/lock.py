"""Write the lock files: ``python -m edge.toolchains.lock [NAME …]``. The only place where versions are chosen.

pip resolves ``requirements/NAME.in`` in a throwaway environment, for the interpreter and machine it runs on, and
every file it would install is written down with its hash. With hashes required, the CPU build of torch cannot be
replaced by another. Names that begin with ``aarch64`` are resolved for 64-bit Arm, and only what they name: pip would
judge what a package needs by the machine it runs on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from edge.toolchains import wheels
from edge.toolchains.places import REQUIREMENTS


def resolve(requirements: Path) -> list[str]:
    """One ``name==version --hash=…`` line per distribution pip would install, sorted by name."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        report = Path(folder) / "report.json"
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        options = ["--no-deps", "--target", folder, *wheels.PLATFORM] if wheels.is_foreign(requirements.stem) else []
        subprocess.run([*pip, *options, "--report", str(report), "-r", str(requirements)], check=True)
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    lines = []
    for item in installs:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name.lower().replace('_', '-')}=={version} --hash=sha256:{digest}")
    return sorted(lines)


def main(names: list[str]) -> None:
    """Resolve the named requirement files, or all of them."""
    for source in sorted(REQUIREMENTS.glob("*.in")):
        if names and source.stem not in names:
            continue
        print(f"resolving {source.name} …", file=sys.stderr)
        machine = "64-bit Arm" if wheels.is_foreign(source.stem) else "x86-64"
        header = f"# Written by `make lock` from {source.name}, for CPython 3.11 on {machine} Linux. Do not edit.\n"
        source.with_suffix(".lock").write_text(header + "\n".join(resolve(source)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
