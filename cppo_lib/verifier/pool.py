"""The parent's end of the zygotes: start them, hand them work as memory files, hear how processes
ended.

The parent may hold threads, CUDA and a notebook kernel, so it never forks: it executes fresh
interpreters (`zygote.py`) and talks to each over a socket pair. A zygote runs one job at a time; a
job in `assert` mode has two processes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cppo_lib.errors import IsolationError
from cppo_lib.verifier.values import read_all

START_S = 60.0
GRACE_S = 10.0
"""How long a zygote may stay silent beyond a job's wall limit before it counts as dead."""
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "OMP_NUM_THREADS": "1",
}


class ZygoteDied(Exception):
    """A zygote hung up, hangs, or talks nonsense."""


@dataclass(frozen=True)
class Outcome:
    """How one test process ended, as the kernel reports it.

    Attributes:
        id: of the job; status: exit status, or minus the signal number.
        killed: the limit it was killed for (`cpu`, `wall`, `disk`), empty if none.
        cpu, wall: seconds; rss: peak resident memory in MiB.
    """

    id: int
    status: int
    killed: str
    cpu: float
    wall: float
    rss: float


def memory_file(data: bytes = b"", *, growing: bool = False) -> int:
    """A new anonymous file holding `data`, at offset 0. The caller closes it.

    One that is `growing` can be written but never cut: once it holds something it is never empty.
    """
    fd = os.memfd_create("cppo", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if growing else 0))
    if growing:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class Zygote:
    """One warm interpreter.

    Attributes:
        busy_until: monotonic time by which it must have reported, if it has a job.
        mechanisms: what it said of setting up `landlock`, `seccomp` and (as root) `identity`.
    """

    def __init__(self) -> None:
        self.busy_until = float("inf")
        self.mechanisms: dict[str, str] = {}
        self.boxes = tempfile.mkdtemp(prefix="cppo-box-")
        self.log = memory_file()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = str(Path(__file__).with_name("zygote.py"))
        command = [sys.executable, "-s", "-P", "-S", "-B", "-X", "utf8", script]
        with theirs:
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno()), self.boxes, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.log,
                env=_ENVIRONMENT,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait for the first message. Raises IsolationError."""
        self.control.settimeout(START_S)
        try:
            self.mechanisms = self._read()["mechanisms"]
        except (OSError, ZygoteDied):
            raise IsolationError(
                f"the verifier's worker did not start ({self.log_line() or 'no message'}); check "
                f"that {sys.executable} runs and that {tempfile.gettempdir()} is writable"
            ) from None

    def log_line(self) -> str:
        """The last thing the zygote or a failing test process had to say."""
        lines = read_all(self.log).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _read(self) -> dict[str, Any]:
        data = self.control.recv(1 << 16)
        if not data:
            raise ZygoteDied
        return dict(json.loads(data))

    def spawn(self, job: dict[str, Any], fds: dict[str, int]) -> None:
        """Start one test process; the caller keeps its descriptors. Raises ZygoteDied."""
        self.busy_until = time.monotonic() + job["wall"] + GRACE_S
        message = json.dumps({**job, "fds": list(fds)}).encode()
        try:
            socket.send_fds(self.control, [message], list(fds.values()))
        except OSError:
            raise ZygoteDied from None

    def receive(self) -> Outcome:
        """Read one outcome; call it when the socket is readable. Raises ZygoteDied."""
        try:
            return Outcome(**self._read())
        except (OSError, TypeError, ValueError):
            raise ZygoteDied from None

    def close(self) -> None:
        """End the zygote and everything under it, and remove its folder."""
        self.control.close()
        try:
            self.process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.log)
        shutil.rmtree(self.boxes, ignore_errors=True)


class Pool:
    """`size` zygotes, started when `fill` is called."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.zygotes: list[Zygote] = []

    def fill(self) -> None:
        """Start the zygotes that are missing, side by side. Raises IsolationError."""
        if not hasattr(os, "memfd_create"):
            raise IsolationError(
                "the verifier needs Linux (5.13 or later, for Landlock and seccomp); on this "
                "system run it in a Linux container or virtual machine"
            )
        fresh = []
        while len(self.zygotes) < self.size:
            fresh.append(Zygote())
            self.zygotes.append(fresh[-1])
        for zygote in fresh:
            zygote.wait_ready()

    def replace(self, zygote: Zygote) -> Zygote:
        """End a zygote and start another in its place. Raises IsolationError."""
        self.zygotes.remove(zygote)
        zygote.close()
        self.fill()
        return self.zygotes[-1]

    def close(self) -> None:
        """End all of them."""
        while self.zygotes:
            self.zygotes.pop().close()
