"""What a benchmark says of the machine, and what its processes have used so far."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

import psutil

from cppo_lib.verifier.cores import usable_cores

CORES = usable_cores()


def facts() -> dict[str, str]:
    """Where this runs, and how busy it is."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": model or platform.machine(),
        "cores": str(CORES),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f} before the start",
    }


def print_facts(found: dict[str, str]) -> None:
    """One fact per line, and an empty line."""
    print(*(f"{name}: {value}" for name, value in found.items()), sep="\n", end="\n\n")


def cpu_s() -> float:
    """CPU seconds so far of this process and of all below it, ended ones included."""
    me = psutil.Process()
    while True:
        with suppress(psutil.NoSuchProcess):  # one has just ended: in the next reading its parent's sum has it
            times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
            return float(sum(t.user + t.system + t.children_user + t.children_system for t in times))
