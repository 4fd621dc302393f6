"""The parent's end of a zygote: start it, hand it work as memory files, hear how a process ended.

The parent may hold threads, CUDA and a notebook kernel, so it never forks: it executes a fresh interpreter
(`zygote.py`) and talks to it over a socket pair. One `Zygote` runs one job at a time; a job in `assert` mode has
two processes.
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
from cppo_lib.verifier.harness import read_all

START_S = 60.0
GRACE_S = 10.0
"""How long a zygote may stay silent beyond a job's wall limit before it counts as dead."""
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
}  # fmt: skip


class ZygoteDied(Exception):
    """A zygote hung up, hung, or could not isolate a process."""


@dataclass(frozen=True)
class Outcome:
    """How one test process ended, as the kernel reports it.

    Attributes:
        status: exit status, or minus the signal number.
        killed: the limit it was killed for (`cpu`, `wall`, `disk`), empty if none.
        cpu, wall: seconds; `rss`: peak resident memory in MiB.
    """

    id: int
    status: int
    killed: str
    cpu: float
    wall: float
    rss: float


def memory_file(data: bytes = b"", *, growing: bool = False) -> int:
    """A new anonymous file holding `data`, at offset 0. The caller closes it.

    One that is `growing` can be written but never cut: once it holds something it stays non-empty.
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
    """One warm interpreter. `busy_until` is the monotonic time by which it must have spoken."""

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create") or not hasattr(socket, "AF_UNIX"):
            raise IsolationError(
                "the verifier needs Linux (5.13 or later, for Landlock and seccomp); on this system run it in a "
                "Linux container or virtual machine"
            )
        self.boxes = tempfile.mkdtemp(prefix="cppo-box-")
        self.log = memory_file()
        self.busy_until = float("inf")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = str(Path(__file__).with_name("zygote.py"))
        command = [sys.executable, "-s", "-P", "-S", "-B", "-X", "utf8", script]
        self.control = ours
        self.process = subprocess.Popen(
            [*command, str(theirs.fileno()), self.boxes, str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log, env=_ENVIRONMENT, cwd="/",
            pass_fds=[theirs.fileno()], start_new_session=True,
        )  # fmt: skip
        theirs.close()

    def wait_ready(self) -> dict[str, Any]:
        """Wait for the first message: which mechanisms the kernel granted. Raises IsolationError."""
        self.control.settimeout(START_S)
        try:
            return self._read()
        except (OSError, ZygoteDied):
            log = read_all(self.log).decode(errors="replace").strip().splitlines()
            raise IsolationError(
                f"the verifier's worker did not start ({log[-1] if log else 'no message'}); check that "
                f"{sys.executable} runs and that {tempfile.gettempdir()} is writable"
            ) from None

    def _read(self) -> dict[str, Any]:
        data = self.control.recv(1 << 16)
        if not data:
            raise ZygoteDied
        return dict(json.loads(data))

    def spawn(self, job: dict[str, Any], fds: dict[str, int]) -> None:
        """Start one test process; `fds` are copied, the caller keeps its own. Raises ZygoteDied."""
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
