"""PoCL, an OpenCL driver that computes on the host's processor, and a C compiler, from Debian's packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge.errors import SetupError
from edge.toolchains import debian
from edge.toolchains.environments import Progress

NAME = "pocl"
PACKAGES = (
    "gcc",
    "libc6-dev",
    "ocl-icd-libopencl1",  # the loader, which finds drivers by the files in a folder
    "opencl-c-headers",
    "pocl-opencl-icd",
)


def ensure(progress: Progress = debian.print_progress) -> Path:
    """Unpack the driver and the compiler unless they are there already.

    Raises:
        SetupError: not a Debian host, no network, or no such package.
    """
    return debian.ensure(NAME, PACKAGES, progress)


def version() -> str:
    """Of the driver, which ``ensure`` has unpacked."""
    return debian.versions(NAME)["pocl-opencl-icd"]


def environment(cache: Path) -> Mapping[str, str]:
    """Variables that make it a program's only OpenCL driver.

    Args:
        cache: a folder for the kernels that it compiles.
    """
    return {
        "LD_LIBRARY_PATH": debian.library_path(NAME),
        "OCL_ICD_VENDORS": str(debian.folder(NAME) / "etc/OpenCL/vendors"),
        "PATH": str(debian.folder(NAME) / "usr/bin"),  # it links each kernel with ld
        "POCL_CACHE_DIR": str(cache),
    }


def compile_program(sources: list[Path], options: tuple[str, ...], program: Path) -> None:
    """Compile a program in C that runs on this host.

    The C library is the host's own, as everywhere; what is needed to link with it comes from the packages.

    Raises:
        SetupError: it does not compile; the message has what the compiler says.
    """
    root = debian.folder(NAME)
    (start,) = root.glob("usr/lib/*/crt1.o")
    place = start.parent
    headers: tuple[str | Path, ...] = ("-isystem", root / "usr/include", "-isystem", root / "usr/include" / place.name)
    libraries = (Path("/lib") / place.name / "libc.so.6", place / "libc_nonshared.a", "-lgcc")
    line: tuple[str | Path, ...] = (
        *options,
        *headers,
        "-B",
        place,
        "-nodefaultlibs",
        "-o",
        program,
        *sources,
        *libraries,
    )
    done = debian.program(NAME, "gcc").run(*line)
    if done.returncode:
        raise SetupError(
            f"{program.name} does not compile: {done.stderr.strip()[:400]}",
            stage="setup",
            next_step=f"remove {root}, so that the compiler is unpacked again",
        )
