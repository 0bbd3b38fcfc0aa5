"""Which vector instructions a runtime really executes: seen where it stands, a few hundred times.

Runtimes choose their kernels by what the core offers, and few say which. A second process stops the thread that runs,
every millisecond or so (ptrace), and reads the instruction that it is about to execute. In 64-bit code every
instruction of AVX-512 begins with the byte 0x62 (EVEX), every one of AVX and AVX2 with 0xC4 or 0xC5 (VEX), and both
name the width of their vectors: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, sections 2.3
and 2.7.

Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

MACHINE = "x86_64"
INTERVAL_S = 1e-3

_CONT, _GETREGS, _SEIZE, _INTERRUPT = 7, 12, 0x4206, 0x4207
_WALL = 0x40000000
"""For waitpid: the threads of another program are no children of ours."""
_EVENT_STOP = 128
_REGISTERS, _RIP = 27, 16
"""How many words x86-64's user_regs_struct has, and which is the instruction pointer."""
_PR_SET_PTRACER = 0x59616D61

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def width(code: bytes) -> int:
    """Bits of the vectors that an instruction works on, as its prefix says.

    Args:
        code: the first four bytes of the instruction.

    Returns:
        128, 256 or 512; 0 for an instruction without such a prefix.
    """
    match code[0]:
        case 0x62:
            return (128, 256, 512, 512)[code[3] >> 5 & 3]  # 3: a rounding mode stands in the width's place
        case 0xC4:
            return (128, 256)[code[2] >> 2 & 1]
        case 0xC5:
            return (128, 256)[code[1] >> 2 & 1]
    return 0


def sampled(infer: Callable[[], object], seconds: float) -> dict[str, float]:
    """Run something over and over while its instructions are looked at.

    Args:
        infer: what is run; in this process, on any thread.
        seconds: for how long.

    Returns:
        The share of the instructions seen, by the bits of their vectors; "0" has no vectors of AVX. Empty if this
        machine or its administrator does not let a process be looked at.
    """
    if platform.machine() != MACHINE:
        return {}
    command = [sys.executable, "-m", __name__, str(os.getpid()), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as observer:
        assert observer.stdin and observer.stdout
        # Where only ancestors may look (Yama), the observed must allow it; elsewhere the call fails and is not needed.
        _libc.prctl(_PR_SET_PTRACER, observer.pid, 0, 0, 0)
        observer.stdin.close()
        while observer.poll() is None:
            infer()
        answer = observer.stdout.read()
    seen: dict[str, int] = json.loads(answer) if observer.returncode == 0 else {}
    total = sum(seen.values())
    return {bits: round(count / total, 4) for bits, count in sorted(seen.items())} if total else {}


class _Thread:
    """A thread of another process, which can be stopped for a look."""

    def __init__(self, process: int, number: int) -> None:
        self._number, self._stat = number, Path(f"/proc/{process}/task/{number}/stat")
        self._ptrace(_SEIZE)

    def runs(self) -> bool:
        """Whether it is on a core, or waits for one."""
        with contextlib.suppress(OSError):
            return self._stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "R"
        return False

    def instruction_pointer(self) -> int:
        """Stop it, see where it stands, and let it go on."""
        self._ptrace(_INTERRUPT)
        _, status = os.waitpid(self._number, _WALL)
        registers = (ctypes.c_ulonglong * _REGISTERS)()
        self._ptrace(_GETREGS, ctypes.addressof(registers))
        signal = 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status)
        self._ptrace(_CONT, signal)
        return int(registers[_RIP])

    def _ptrace(self, request: int, data: int = 0) -> None:
        if _libc.ptrace(request, self._number, None, data) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def observe(process: int, seconds: float) -> Counter[int]:
    """Look at the running threads of another process, which go on unharmed.

    Returns:
        How often an instruction of each width was seen.

    Raises:
        OSError: the process may not be looked at, or has ended.
    """
    threads = [_Thread(process, int(task.name)) for task in Path(f"/proc/{process}/task").iterdir()]
    seen: Counter[int] = Counter()
    end = time.monotonic() + seconds
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        while time.monotonic() < end:
            time.sleep(INTERVAL_S)
            for thread in threads:
                if thread.runs():
                    memory.seek(thread.instruction_pointer())
                    seen[width(memory.read(4))] += 1
    return seen


def main(arguments: list[str]) -> None:
    """Observe the process that is named for the seconds that are named, once it closes our standard input."""
    process, seconds = arguments
    # Beside the observed, which keeps to one core.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    sys.stdin.read()
    print(json.dumps(observe(int(process), float(seconds))))


if __name__ == "__main__":
    main(sys.argv[1:])
