"""What one kernel costs on the target's emulated core: counted, and modelled with LLVM; always the same, to the digit.

The kernel's object file is linked with a small runner (``kernel_runner.c``) into a program without libraries. QEMU runs
it and counts the blocks of code that it executes; llvm-mca models the cycles of each. Modelled cycles know no caches:
misses in caches of the target's sizes can be counted beside them.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edge.cost import counter, cycles
from edge.cost.counter import Block, Memory
from edge.cost.instructions import FMA_FP32, Instruction, decode
from edge.devices import emulated
from edge.errors import ExportError, SetupError
from edge.fingerprint import file_digest, text_digest
from edge.targets import Target
from edge.toolchains import arm64, debian, wheels
from edge.toolchains.environments import Progress
from edge.toolchains.once import made_once
from edge.toolchains.places import PRIVATE
from edge.tuning.compiled import Kernel

SOURCE = Path(__file__).with_name("kernel_runner.c")
FOLDER = PRIVATE / "kernel-runner"
WHEELS = "aarch64"
OPTIONS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-c")
LIMIT_S = 120
HOTTEST = 5
LONG, LONG_ITERATIONS = 64, (4, 16)
"""Blocks of so many instructions fill the pipeline sooner than ``cycles`` waits, which would take most of the time."""


@dataclass(frozen=True)
class HotBlock:
    """Instructions that execute one after the other; a tight loop is one block.

    Attributes:
        executions: how often it was entered.
        modelled_cycles: of one execution.
        share: of the kernel's modelled cycles.
        listing: its instructions, as assembly.
    """

    executions: int
    modelled_cycles: float
    share: float
    listing: tuple[str, ...]

    def __str__(self) -> str:
        head = f"{self.share:.1%} of the cycles: {self.executions:,} times {self.modelled_cycles:.1f}"
        return "\n    ".join((head, *self.listing))


@dataclass(frozen=True)
class Measured:
    """One run of a kernel on the emulated core, with one thread.

    Attributes:
        modelled_cycles: in LLVM's model of the core's pipeline; never a time.
        instructions: executed.
        vector_fma: of them, vector multiply-adds in float32.
        memory: traffic and misses; None where they were not counted.
        hottest: the blocks with the most modelled cycles.
    """

    modelled_cycles: int
    instructions: int
    vector_fma: int
    memory: Memory | None
    hottest: tuple[HotBlock, ...]

    def share_of_floor(self, macs: int, target: Target) -> float:
        """What the multiply-adds would take at the core's peak, as a share of the modelled cycles."""
        return 2 * macs / target.core.peak_flop_per_cycle["fp32"] / self.modelled_cycles


def measure(kernel: Kernel, target: Target, *, caches: bool = False) -> Measured:
    """Run one kernel on the emulated core and model its cycles.

    Args:
        kernel: its object file.
        target: has an ``[emulated]`` table.
        caches: whether to count misses, in a second run of the kernel whose caches the first has warmed.

    Raises:
        SetupError: a tool cannot be had.
        ExportError: the kernel does not link, faults, or is not done after ``LIMIT_S``.
    """
    assert target.emulated is not None
    with tempfile.TemporaryDirectory(prefix="edge-kernel-") as scratch:
        folder = Path(scratch)
        _link(kernel.file, folder / "kernel")
        executed = folder / "executed.txt"
        plugin = counter.options(counter.ensure(_silent), executed, target.caches if caches else None)
        arguments = [str(int(caches)), *("x".join(map(str, shape)) for shape in kernel.shapes)]
        # The program by a name without a path: what lies on its stack has a part in deciding cache misses.
        command = [*emulated.command(target, *plugin), "./kernel", *arguments]
        _run(command, folder)
        profile = counter.read(executed)
    executions = profile.executions()
    instructions = decode(executions)
    modelled = _model(profile.blocks, instructions, target.emulated.scheduling_model)
    total = sum(block.executions * modelled[block.words] for block in profile.blocks)
    kinds: Counter[str] = Counter()
    for word, count in executions.items():
        kinds[instructions[word].kind] += count
    return Measured(
        modelled_cycles=round(total),
        instructions=executions.total(),
        vector_fma=kinds[FMA_FP32],
        memory=profile.memory,
        hottest=_hottest(profile.blocks, instructions, modelled, total),
    )


def ensure(progress: Progress = debian.print_progress) -> Path:
    """The runner without a kernel, as an object file; it is compiled unless it is there already.

    Raises:
        SetupError: the tools cannot be had, or do not compile it.
    """
    sysroot, headers = arm64.ensure(progress), wheels.ensure(WHEELS, progress) / "tvm_ffi/include"
    parts = (file_digest(SOURCE), wheels.digest(WHEELS), *OPTIONS, repr(debian.versions(arm64.NAME)))
    runner = FOLDER / f"runner-{text_digest(parts)[:16]}.o"
    if made_once(runner, lambda partial: _compile(sysroot, headers, partial)):
        progress("kernel runner: compiled")
    return runner


def _compile(sysroot: Path, headers: Path, runner: Path) -> None:
    done = _compiler().run(f"--sysroot={sysroot}", *OPTIONS, "-isystem", headers, "-o", runner, SOURCE)
    if done.returncode:
        raise SetupError(
            f"the kernel runner does not compile: {done.stderr.strip()[:400]}",
            stage="setup",
            next_step=f"remove {sysroot}, so that the compiler is unpacked again",
        )


def _compiler() -> debian.Program:
    return arm64.program("aarch64-linux-gnu-gcc")


def _link(kernel: Path, program: Path) -> None:
    done = _compiler().run(
        f"--sysroot={debian.folder(arm64.NAME)}", "-static", "-o", program, ensure(_silent), kernel, "-lm"
    )
    if done.returncode:
        raise _fault(f"it does not link: {done.stderr.strip()[-300:]}")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(emulated.environment()),
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            check=False,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise _fault(f"it is not done after {LIMIT_S} s") from None
    if done.returncode:
        raise _fault(f"it ended with status {done.returncode}: {done.stderr.strip()[-300:]}")


def _fault(reason: str) -> ExportError:
    return ExportError(
        f"a kernel cannot be measured: {reason}", stage="tune", next_step="leave out the choice that makes this kernel"
    )


def _model(
    blocks: tuple[Block, ...], instructions: dict[int, Instruction], scheduling_model: str
) -> dict[cycles.Words, float]:
    """Cycles of one execution of each block."""
    words = {block.words for block in blocks}
    long = sorted(block for block in words if len(block) >= LONG)
    short = sorted(words.difference(long))
    found: dict[cycles.Words, float] = {}
    for group, iterations in ((short, (cycles.FILLED, cycles.ENOUGH)), (long, LONG_ITERATIONS)):
        if group:
            found |= cycles.model(group, instructions, scheduling_model, iterations).cycles
    return found


def _hottest(
    blocks: tuple[Block, ...], instructions: dict[int, Instruction], modelled: dict[cycles.Words, float], total: float
) -> tuple[HotBlock, ...]:
    hot = sorted(blocks, key=lambda block: (-block.executions * modelled[block.words], block.address))[:HOTTEST]
    return tuple(
        HotBlock(
            block.executions,
            modelled[block.words],
            block.executions * modelled[block.words] / total,
            tuple(instructions[word].text for word in block.words),
        )
        for block in hot
    )


def _silent(line: str) -> None:
    pass
