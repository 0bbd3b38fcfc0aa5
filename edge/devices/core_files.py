"""What Linux would say about the emulated core: the files that runtimes read to choose their kernels.

QEMU's user-mode emulation passes reads of ``/proc`` and ``/sys`` on to the host, unless the files exist under its
``-L`` folder. A runtime that believed the host's would choose kernels for another core, or crash. The files describe
one CPU: with one thread, and one only, counts repeat to the digit.
"""

from __future__ import annotations

from pathlib import Path

from edge.errors import SetupError
from edge.targets import Target

CPUS = "sys/devices/system/cpu"


def write(target: Target, root: Path) -> None:
    """Write the files of the target's core under a folder that QEMU gets as ``-L``.

    Raises:
        SetupError: the target's profile describes no emulated core.
    """
    for name, text in _files(target).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")


def _files(target: Target) -> dict[str, str]:
    """Text by path."""
    if target.emulated is None:
        raise SetupError(
            "its profile has no [emulated] table",
            stage="setup",
            target=target.name,
            next_step="`edge targets` shows which cores are emulated; name a board with --device ssh://user@board",
        )
    midr, caches = target.emulated.midr, target.caches
    cpuinfo = {
        "processor": 0,
        "BogoMIPS": "108.00",
        "Features": target.emulated.cpuinfo,
        "CPU implementer": f"0x{midr >> 24:02x}",
        "CPU architecture": 8,
        "CPU variant": f"0x{midr >> 20 & 0xF:x}",
        "CPU part": f"0x{midr >> 4 & 0xFFF:03x}",
        "CPU revision": midr & 0xF,
    }
    kilohertz = int(target.core.clock_ghz * 1e6)
    files = {
        "proc/cpuinfo": "\n".join(f"{name}\t: {value}" for name, value in cpuinfo.items()) + "\n",
        f"{CPUS}/kernel_max": "0",
        f"{CPUS}/cpu0/regs/identification/midr_el1": f"0x{midr:016x}",
        f"{CPUS}/cpu0/cpufreq/cpuinfo_max_freq": str(kilohertz),
        f"{CPUS}/cpu0/cpufreq/cpuinfo_min_freq": str(kilohertz),
        f"{CPUS}/cpu0/topology/physical_package_id": "0",
        f"{CPUS}/cpu0/topology/core_id": "0",
    }
    files |= {f"{CPUS}/{name}": "0" for name in ("possible", "present", "online")}
    lists = ("core_siblings", "package_cpus", "cluster_cpus", "core_cpus", "thread_siblings")
    files |= {f"{CPUS}/cpu0/topology/{name}_list": "0" for name in lists}
    levels = ((1, "Data", caches.l1d_kib, caches.l1d_ways), (2, "Unified", caches.l2_kib, caches.l2_ways))
    for index, (level, kind, kib, ways) in enumerate(levels):
        cache = {
            "level": level,
            "type": kind,
            "size": f"{kib}K",
            "coherency_line_size": caches.line_bytes,
            "ways_of_associativity": ways,
            "number_of_sets": kib * 1024 // (caches.line_bytes * (ways or 1)),
            "shared_cpu_list": 0,
        }
        files |= {f"{CPUS}/cpu0/cache/index{index}/{name}": str(value) for name, value in cache.items()}
    return files
