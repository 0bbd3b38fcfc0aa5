"""Machine code: every kernel scheduled, the module compiled, one shared library linked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from edge.backends.tvm.memory import Plan
from edge.backends.tvm.rewrite import Choose
from edge.kernels import stock
from edge.kernels.core import Core
from edge.kernels.stock import Stock, StockProblem, StockTemplate
from edge.targets import Target
from edge.toolchains import debian

SCHEDULED = "tirx.is_scheduled"
STOCK = StockTemplate()


def unscheduled(module: tvm.IRModule) -> Iterator[tuple[tvm.ir.GlobalVar, tirx.PrimFunc]]:
    """The kernels that no template made."""
    for name, function in module.functions.items():
        if isinstance(function, tirx.PrimFunc) and not (function.attrs and SCHEDULED in function.attrs):
            yield name, function


def problem(name: tvm.ir.GlobalVar, function: tirx.PrimFunc) -> StockProblem:
    """What records know such a kernel by."""
    return StockProblem.of(name.name_hint, function)


def schedule(module: tvm.IRModule, core: Core, choose: Choose) -> tuple[tvm.IRModule, dict[str, str]]:
    """Schedule every kernel that no template made.

    Returns:
        The module, and how each of these kernels was scheduled, by its name.
    """
    scheduled, ways = tvm.IRModule(module.functions, attrs=module.attrs), dict[str, str]()
    for name, function in unscheduled(module):
        kernel = problem(name, function)
        choice = choose(STOCK, kernel)
        assert isinstance(choice, Stock)
        scheduled[name], ways[name.name_hint] = stock.scheduled(kernel, choice, core)
    return scheduled, ways


def counted(ways: dict[str, str]) -> dict[str, int]:
    """How many kernels were scheduled in each way, for the report."""
    return {f"kernels {way}": count for way, count in sorted(Counter(ways.values()).items())}


def write(module: tvm.IRModule, target: Target, library: Path) -> Plan:
    """Compile a module of scheduled kernels for a target's core and link the library.

    Returns:
        What memory the library needs.

    Raises:
        RuntimeError: the linker fails.
    """
    assert target.tvm is not None, "the table of formats asks for it"
    plan = Plan()
    with tvm.transform.PassContext(opt_level=3, instruments=[plan]):
        executable = tvm.compile(module, target=tvm.target.Target(target.tvm.model_dump(mode="json")["target"]))
    executable.export_library(str(library), fcompile=_link_with(target))
    return plan


def _link_with(target: Target) -> Callable[..., None]:
    """What ``export_library`` calls with the library's name and the object files."""
    assert target.tvm is not None
    linker = target.tvm.linker
    debian.ensure(linker.package, (linker.package,))
    program = debian.program(linker.package, linker.program)

    def link(library: str, objects: list[str], **_: Any) -> None:
        # No libraries: what the kernels call is in TVM's runtime and in the C library, which are loaded before them.
        options = ("-shared", "--strip-debug", "--build-id=none", "-z", "noexecstack", *linker.options)
        done = program.run(*options, "-o", library, *objects)
        if done.returncode:
            raise RuntimeError(f"{linker.program} could not link {Path(library).name}: {done.stderr.strip()[:200]}")

    return link
