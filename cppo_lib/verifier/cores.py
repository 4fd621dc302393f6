"""How many cores this process may use: the one answer for everything that works side by side."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(proc: Path = Path("/proc/self")) -> int:
    """Cores that this process may use, at least 1: of its affinity, and no more than its cgroups' quota pays for.

    Neither is what `os.cpu_count` says: that counts the host's, of which a container or a batch job may own a few. A
    quota is rounded up.

    Args:
        proc: where the system describes this process and its mounts.
    """
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([mine, *(math.ceil(quota) for quota in _quotas(proc))]))


def _quotas(proc: Path) -> Iterator[float]:
    """The quota of this process's CPU cgroup and of each one above it, in cores."""
    for folder, top in _cgroups(proc):
        while True:
            yield from _quota(folder)
            if folder == top or not folder.is_relative_to(top):
                break
            folder = folder.parent


def _cgroups(proc: Path) -> Iterator[tuple[Path, Path]]:
    """(this process's folder, the mounted top) for each hierarchy that can hold a CPU quota: version 2, or `cpu`."""
    try:
        mine = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
        mounts = [line.split() for line in (proc / "mountinfo").read_text().splitlines()]
    except OSError:  # no Linux
        return
    paths = {name: path for _, names, path in mine for name in names.split(",")}
    for fields in mounts:
        root, top, kind, options = fields[3], Path(fields[4]), fields[fields.index("-") + 1], fields[-1].split(",")
        name = "" if kind == "cgroup2" else "cpu"
        if kind == "cgroup2" or kind == "cgroup" and "cpu" in options:
            path = PurePosixPath(paths.get(name, "/"))
            # In a container the mount may begin at its own cgroup, and the path may be the host's.
            below = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
            yield top / below, top


def _quota(folder: Path) -> Iterator[float]:
    """The cores that one cgroup may use; nothing where it has no limit."""
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    except OSError:
        return
    if quota != "max" and int(quota) > 0:
        yield int(quota) / int(period)
