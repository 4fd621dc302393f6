"""The parent's end of the zygotes: start them, hand them work as memory files, hear how processes ended.

The parent may hold threads, CUDA and a notebook kernel, so it never forks: it executes fresh interpreters
(`zygote.py`) and talks to each over a socket pair.

Back-ends differ in how long an interpreter lives and in what surrounds it, not in what it does, so that they give the
same verdicts: `zygote` keeps one warm interpreter per worker; `spawn` starts a fresh one for every program and uses
nothing but POSIX (the default where there is no Linux); `bwrap` keeps warm ones inside bubblewrap's namespaces, with a
file system that holds Python's library and nothing else, no network device and a process tree of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cppo_lib.errors import IsolationError
from cppo_lib.verifier import namespaces
from cppo_lib.verifier.child.isolation import landlock_abi
from cppo_lib.verifier.child.values import read_all
from cppo_lib.verifier.child.wire import Channel, Closed, pair
from cppo_lib.verifier.cores import Share

BACKENDS = ("zygote", "spawn", "bwrap")
START_S = 300.0
"""How long an interpreter may take to start on a busy machine."""
STARTS = 3
"""How often one that is lost before it was up is started anew."""
_BOXES = "cppo-box-"
_FRESH_S = 60.0
"""A folder of boxes this young may be one that is just being made."""
GRACE_S = 10.0
"""How long a zygote may stay silent beyond a job's wall limit before it counts as dead."""
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LD_BIND_NOW": "1",  # otherwise every test process looks up library functions for itself
    "MALLOC_ARENA_MAX": "1",  # or every thread reserves 64 MiB of a program's address space, as far as cores go
}


@dataclass(frozen=True)
class Outcome:
    """How one process ended, as the kernel reports it.

    Attributes:
        id: of the job; status: exit status, or minus the signal number.
        killed: the limit it was killed for (`cpu`, `wall`, `disk`), empty if none; `not yet`: it still runs.
        cpu, wall: seconds; rss: peak resident memory in MiB.
    """

    id: int
    status: int
    killed: str
    cpu: float
    wall: float
    rss: float


def receive(channel: Channel) -> list[Outcome]:
    """The reports that have arrived; call it when the channel is readable. Raises Closed."""
    return [Outcome(*report) for report in channel.reports()]


def memory_file(data: bytes = b"", *, growing: bool = False) -> int:
    """A new nameless file holding `data`, at offset 0. The caller closes it.

    One that is `growing` can (on Linux) be written but never cut: once it holds something it is never empty.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("cppo", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if growing else 0))
        if growing:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def default_backend() -> str:
    """The fastest back-end that can hold every layer here: bubblewrap where the kernel has no Landlock."""
    if sys.platform != "linux":
        return "spawn"
    return "zygote" if landlock_abi() or namespaces.find_bwrap() is None else "bwrap"


def _packages() -> str:
    """The folder of installed packages that numpy is in, empty if it is not installed."""
    spec = importlib.util.find_spec("numpy")
    return str(Path(spec.origin).parents[1]) if spec and spec.origin else ""


def hold(folder: str) -> int:
    """A descriptor that marks a folder as in use for as long as a process has it open. The caller closes it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(OSError):  # a file system without locks: `sweep` leaves the folder there
        fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def sweep() -> None:
    """Remove what is left of boxes whose processes were all killed at once, so that none could clean up."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_BOXES}*"):
        with contextlib.suppress(OSError):  # in use, another user's, already gone
            known = folder.lstat()
            if known.st_uid != os.geteuid() or time.time() - known.st_mtime < _FRESH_S:
                continue
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(fd)


class Zygote:
    """One interpreter that starts programs.

    Attributes:
        busy_until: monotonic time by which it must have reported, if it has a job.
        mechanisms: what it said of setting up `landlock`, `seccomp` and (as root) `identity`.
        used: whether it has been given a job.
        boxes: the folder its programs work in; empty for bubblewrap's, which is in memory and goes with it.
    """

    def __init__(self, backend: str) -> None:
        self.busy_until = float("inf")
        self.used = False
        self.mechanisms: dict[str, str] = {}
        self.boxes, self.held = "", -1
        with contextlib.ExitStack() as undo:
            if backend != "bwrap":
                self.boxes = tempfile.mkdtemp(prefix=_BOXES)
                undo.callback(shutil.rmtree, self.boxes, ignore_errors=True)
                self.held = hold(self.boxes)
                undo.callback(os.close, self.held)
            self.log = memory_file()
            undo.callback(os.close, self.log)
            self.control, theirs = pair()
            undo.callback(self.control.close)
            with theirs:
                self.process = self._execute(backend, theirs.fileno())
            undo.pop_all()

    def _execute(self, backend: str, control: int) -> subprocess.Popen[bytes]:
        packages = _packages()
        wakes = "polls" if backend == "spawn" else "wakes"
        script = Path(__file__).parent / "child" / "zygote.py"
        command = [sys.executable, "-s", "-P", "-S", "-B", "-X", "utf8", str(script)]
        command += [str(control), self.boxes or namespaces.BOXES, packages, wakes]
        if backend == "bwrap":
            command = namespaces.wrap(command, packages)
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.log,
            env=_ENVIRONMENT,
            cwd="/",
            pass_fds=[control, *([self.held] if self.boxes else [])],
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        """Wait for the first message. Raises IsolationError."""
        self.control.socket.settimeout(START_S)
        try:
            ((message, _),) = self.control.receive()
            self.mechanisms = message["mechanisms"]
        except (OSError, Closed, KeyError, ValueError):
            raise IsolationError(
                f"the verifier's worker did not start ({self.log_line() or 'no message'}); check "
                f"that {sys.executable} runs and that {tempfile.gettempdir()} is writable"
            ) from None
        self.control.socket.settimeout(None)

    def log_line(self) -> str:
        """The last thing the zygote or a failing test process had to say."""
        lines = read_all(self.log).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def start(self, job: dict[str, Any], fds: dict[str, int], patience: float) -> None:
        """Start a process, from which to hear within `patience` seconds; the caller keeps `fds`. Raises Closed."""
        self.used = True
        self.expect(patience)
        self.control.send(job, fds)

    def expect(self, patience: float) -> None:
        """Something has to be heard of its job within this time."""
        self.busy_until = time.monotonic() + patience + GRACE_S

    def heard(self) -> None:
        """It has said that its job is being watched: the time in which something has to be heard begins anew."""
        self.busy_until = max(self.busy_until, time.monotonic() + GRACE_S)

    def close(self) -> None:
        """End the zygote and everything under it, and remove its folder."""
        self.control.close()
        try:
            self.process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.log)
        if self.boxes:
            shutil.rmtree(self.boxes, ignore_errors=True)
            os.close(self.held)


class Pool:
    """`size` zygotes, started when `fill` is called; `share` says how many may be busy beside other verifiers."""

    def __init__(self, size: int, backend: str) -> None:
        self.size, self.backend = size, backend
        self.zygotes: list[Zygote] = []
        self.share = Share(size)
        sweep()

    def fill(self) -> None:
        """Start the zygotes that are missing, side by side, and anew those lost at that. Raises IsolationError."""
        for left in reversed(range(STARTS)):
            up = len(self.zygotes)
            while len(self.zygotes) < self.size:
                self.zygotes.append(Zygote(self.backend))
            for zygote in self.zygotes[up:]:
                try:
                    zygote.wait_ready()
                except IsolationError:
                    if not left:
                        raise
                    self.zygotes.remove(zygote)
                    zygote.close()

    def renews(self, zygote: Zygote) -> bool:
        """Whether the next program needs a fresh interpreter."""
        return self.backend == "spawn" and zygote.used

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
