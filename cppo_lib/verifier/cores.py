"""How many cores this process may use, and how the verifiers that run programs at the same time share them.

`usable_cores` is the one answer for everything that works side by side. Runs of a series go side by side, each with a
verifier of its own, which together have no more workers than there are cores. While one is at work it holds an abstract
socket, whose name the others see in /proc/net/unix. Such a socket is no file, nobody connects to it, and it ends with
its process, however that ends; so there is nothing to wait for, to clean up or to be blocked by. Where there is no
Linux, or in another network namespace, nobody is seen.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_NAME = "cppo-judging-"
_COUNT_S = 0.25
"""How long a count of the others holds."""
_numbers = itertools.count()


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


class Share:
    """The part of the cores that a verifier with `size` workers may use while it judges, as a context."""

    def __init__(self, size: int) -> None:
        self.size, self._cores = size, usable_cores()
        self._socket: socket.socket | None = None
        self._allowed, self._counted = size, 0.0

    def __enter__(self) -> Share:
        with contextlib.suppress(OSError):
            mark = socket.socket(socket.AF_UNIX)
            self._socket, self._counted = mark, 0.0
            mark.bind(f"\0{_NAME}{os.getpid()}-{next(_numbers)}")
        return self

    def __exit__(self, *error: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def limited(self) -> bool:
        """Whether others judge too, so that there may be more room later."""
        return self._allowed < self.size

    def workers(self) -> int:
        """How many workers may be busy now, at least one; all of them where nobody else judges."""
        if time.monotonic() - self._counted > _COUNT_S:
            judging = _judging()
            self._allowed = self.size if judging < 2 else max(1, min(self.size, self._cores // judging))
            self._counted = time.monotonic()
        return self._allowed


def _judging() -> int:
    """How many verifiers judge now, this one included."""
    try:
        return Path("/proc/net/unix").read_bytes().count(f" @{_NAME}".encode())
    except OSError:
        return 0
