"""The counter: a QEMU plugin of our own that counts what one inference executes, between two marker instructions.

The plugin (``counter.c``) is compiled on this host when it is first needed. It counts executions of blocks of
instructions and nothing more; instruction classes, cycles and places are told from the blocks afterwards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edge.errors import ExportError, SetupError
from edge.fingerprint import file_digest, text_digest
from edge.targets.profile import Caches
from edge.toolchains import arm64, debian
from edge.toolchains.environments import Progress
from edge.toolchains.once import made_once
from edge.toolchains.places import PRIVATE

SOURCE = Path(__file__).with_name("counter.c")
FOLDER = PRIVATE / "counter"
# The C library is the host's, and QEMU brings it along with its own symbols.
OPTIONS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", "-shared", "-nostdlib")


@dataclass(frozen=True)
class Block:
    """Instructions that execute one after the other.

    QEMU forms blocks as it meets them: from wherever a jump leads to the next branch or end of a page. So blocks
    overlap: one that begins before a loop may hold the loop's body once more.

    Attributes:
        address: of the first instruction, in the emulated program's memory.
        executions: how often it was entered.
        words: the instructions, 32 bits each.
    """

    address: int
    executions: int
    words: tuple[int, ...]


@dataclass(frozen=True)
class Memory:
    """Data traffic. A line that is loaded or stored and is not in the cache is a miss of that cache."""

    loaded_bytes: int
    stored_bytes: int
    l1d_misses: int
    l2_misses: int


@dataclass(frozen=True)
class Profile:
    """All that one inference executed.

    Attributes:
        threads: of the emulated program; the counts are exact for one.
        memory: None where no caches were modelled.
        blocks: in order of address; none without executions.
    """

    threads: int
    memory: Memory | None
    blocks: tuple[Block, ...]

    def executions(self) -> Counter[int]:
        """How often each instruction word was executed, wherever it stands."""
        counts: Counter[int] = Counter()
        for block in self.blocks:
            for word in block.words:
                counts[word] += block.executions
        return counts


def ensure(progress: Progress = debian.print_progress) -> Path:
    """The plugin; it is compiled unless it is there already.

    Raises:
        SetupError: the tools cannot be had, or do not compile it.
    """
    sysroot = arm64.ensure(progress)
    parts = (file_digest(SOURCE), *OPTIONS, str(debian.versions(arm64.NAME)["gcc-12"]))
    plugin = FOLDER / f"counter-{text_digest(parts)[:16]}.so"
    if made_once(plugin, lambda partial: _compile(sysroot, partial)):
        progress("instruction counter: compiled")
    return plugin


def _compile(sysroot: Path, plugin: Path) -> None:
    result = arm64.program("gcc").run(f"--sysroot={sysroot}", *OPTIONS, "-o", plugin, SOURCE)
    if result.returncode:
        raise SetupError(
            f"the instruction counter does not compile: {result.stderr.strip()[:400]}",
            stage="setup",
            next_step=f"remove {sysroot}, so that the compiler is unpacked again",
        )


def options(plugin: Path, profile: Path, caches: Caches | None = None) -> tuple[str, ...]:
    """QEMU's options that make it count.

    Args:
        plugin: from ``ensure``.
        profile: the file to write, by its absolute path; its folder exists.
        caches: sizes and associativity of the caches to model; traffic and misses are not counted without.

    Raises:
        SetupError: the profile of the target says nothing of the associativity.
    """
    fields = {"out": str(profile)}
    if caches is not None:
        sizes = (caches.l1d_kib, caches.l1d_ways, caches.l2_kib, caches.l2_ways, caches.line_bytes)
        if None in sizes:
            raise SetupError(
                "the target's caches are described without their associativity",
                stage="cost",
                next_step="add l1d_ways and l2_ways to the target's [caches]",
            )
        fields["cache"] = ":".join(map(str, sizes))
    values = [str(plugin), *(f"{name}={value}" for name, value in fields.items())]
    return ("-plugin", ",".join(value.replace(",", ",,") for value in values))  # QEMU reads two commas as one


def read(profile: Path) -> Profile:
    """What the plugin wrote.

    Raises:
        ExportError: the file is missing or is no profile: the program did not reach both markers.
    """
    try:
        header, *lines = profile.read_text(encoding="ascii").splitlines()
        fields = {name: int(value) for name, value in (field.split("=") for field in header.split())}
        threads = fields.pop("threads")
        blocks = sorted((_block(line) for line in lines), key=lambda block: (block.address, block.words))
        return Profile(threads, Memory(**fields) if fields else None, tuple(blocks))
    except FileNotFoundError:
        problem = "the emulated program did not reach both markers, so nothing was counted"
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{profile} is no profile of the instruction counter: {error}"
    raise ExportError(problem, stage="cost", next_step="run a program that marks one inference, as edge/runners do")


def _block(line: str) -> Block:
    address, executions, *words = line.split()
    return Block(int(address, 16), int(executions), tuple(int(word, 16) for word in words))
