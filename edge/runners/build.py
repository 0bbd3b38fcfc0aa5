"""Builds the native runners into bundles: a program with every library it needs, down to the C library and the loader.

A bundle asks nothing of the device but a kernel: it is started through its own loader, so the same bytes run on the
emulated core, on any board's distribution and on Android.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from edge.errors import SetupError
from edge.toolchains import arm64, debian, wheels
from edge.toolchains.environments import Progress, exclusive
from edge.toolchains.places import PRIVATE

RUNNERS = PRIVATE / "runners"
SOURCES = Path(__file__).resolve().parent
SHARED = ("regions.h", "symbols.h", "runner.h", "runner.cc", "build.py")
LOADER = "ld-linux-aarch64.so.1"
WHEELS = "aarch64"
FLAGS = (
    *("-std=c++20", "-O2", "-Wall", "-Wextra"),
    *("-Wl,--strip-debug", "-Wl,--build-id=none", "-Wl,-z,noexecstack"),  # no trace of where or when it was built
    "-Wl,--no-as-needed",  # delegates and kernels register themselves: nothing in the program names them
)


@dataclass(frozen=True)
class Recipe:
    """How one runtime's runner is built.

    Attributes:
        source: the file beside this one that loads the artifact.
        libraries: of the wheels, those it is linked with.
        includes: folders of the wheels with headers.
        macros: that the headers ask for.
    """

    source: str
    libraries: tuple[str, ...]
    includes: tuple[str, ...] = ()
    macros: tuple[str, ...] = ()


_EXECUTORCH = Recipe(
    source="executorch.cc",
    # What the host's Python bindings load, less the delegates of other vendors.
    libraries=(
        "executorch/lib/libexecutorch.so",
        "executorch/lib/libexecutorch_backend_xnnpack.so",
        "executorch/lib/libexecutorch_kernels_optimized.so",
        "executorch/lib/libexecutorch_threadpool.so",
    ),
    includes=("executorch/include", "executorch/include/executorch/runtime/core/portable_type/c10"),
    macros=("C10_USING_CUSTOM_GENERATED_MACROS",),
)
RECIPES = {
    "tvm": Recipe(
        source="tvm.cc",
        libraries=("tvm/lib/libtvm_runtime.so", "tvm_ffi/lib/libtvm_ffi.so"),
        includes=("tvm_ffi/include",),
    ),
    "executorch": _EXECUTORCH,
    "executorch_bundled": _EXECUTORCH,
    "litert": Recipe(source="litert.cc", libraries=("ai_edge_litert/libLiteRt.so",)),
}
"""By module of ``edge.runtimes``."""


def bundle(runtime: str, progress: Progress = debian.print_progress) -> Path:
    """Build a runtime's bundle, unless it is there already.

    Args:
        runtime: a key of ``RECIPES``.
        progress: called with a line of text as the work goes on.

    Returns:
        The folder: ``run`` and ``lib``. Its name tells its content: sources, wheels and tools.

    Raises:
        SetupError: the cross compiler or the wheels cannot be had, or the runner does not build.
    """
    arm64.ensure(progress)
    wheels.ensure(WHEELS, progress)
    recipe = RECIPES[runtime]
    name = Path(recipe.source).stem
    folder = RUNNERS / f"{name}-{_digest(recipe)[:16]}"
    if not folder.is_dir():
        with exclusive(RUNNERS / f".{name}.lock"):
            if not folder.is_dir():
                progress(f"runner {name}: building")
                _make(recipe, name, folder)
    return folder


def _digest(recipe: Recipe) -> str:
    """Of all that decides the bundle's bytes."""
    parts = [(SOURCES / file).read_bytes() for file in (*SHARED, recipe.source)]
    parts += [wheels.digest(WHEELS).encode(), repr(debian.versions(arm64.NAME)).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _make(recipe: Recipe, name: str, folder: Path) -> None:
    """Build into a partial folder and rename it; then remove what older sources left."""
    partial = RUNNERS / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "lib").mkdir(parents=True)
    _compile(recipe, partial / "run")
    for library in _needed(recipe, partial / "run"):
        shutil.copyfile(library, partial / "lib" / library.name)
    (partial / "lib" / LOADER).chmod(0o755)
    for old in RUNNERS.glob(f"{name}-*"):
        shutil.rmtree(old)
    partial.rename(folder)


def _compile(recipe: Recipe, program: Path) -> None:
    root = wheels.folder(WHEELS)
    libraries = [root / library for library in recipe.libraries]
    done = arm64.program("aarch64-linux-gnu-g++").run(
        f"--sysroot={debian.folder(arm64.NAME)}",
        *FLAGS,
        *(f"-D{macro}" for macro in recipe.macros),
        *(part for include in recipe.includes for part in ("-isystem", root / include)),
        *(SOURCES / file for file in ("runner.cc", recipe.source)),
        *libraries,
        *sorted({f"-Wl,-rpath-link={library.parent}" for library in libraries}),
        "-o",
        program,
    )
    if done.returncode:
        raise SetupError(
            f"the native runner {recipe.source} does not build: {done.stderr.strip()[:400]}",
            stage="setup",
            next_step="this is a fault of ours: report it with the message above",
        )


def _needed(recipe: Recipe, program: Path) -> list[Path]:
    """Every shared library that the program needs, directly or through others, and the loader."""
    wheel = {Path(library).name: wheels.folder(WHEELS) / library for library in recipe.libraries}
    found: dict[str, Path] = {}
    waiting = [LOADER, *_needs(program)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = wheel.get(name, arm64.libraries() / name)
            waiting += _needs(found[name])
    return [found[name] for name in sorted(found)]


def _needs(file: Path) -> list[str]:
    done = arm64.program("aarch64-linux-gnu-readelf").run("--dynamic", file)
    if done.returncode:
        raise SetupError(
            f"{file.name}, which a native runner needs, cannot be read: {done.stderr.strip()[:200]}",
            stage="setup",
            next_step=f"remove {debian.folder(arm64.NAME)}, so that it is unpacked again",
        )
    return re.findall(r"\(NEEDED\).*\[(.+)\]", done.stdout)
