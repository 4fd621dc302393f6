"""How long a process has waited for a core: what tells one that sleeps from one that a busy machine does not run.

Wall time is there to end programs that sleep or are blocked. Time in which a program could have run and others had the
core is not its own, and does not count. Standard library only.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import struct
import time

WEIGH_S = 0.1
"""How often is looked at what a process waits for."""
_QUESTION, _ANSWER = struct.Struct("=qd"), struct.Struct("=d")


class Waits:
    """What looks at a process that began at `started` have shown."""

    def __init__(self, started: float) -> None:
        self._total, self._started, self._delay = 0.0, started, 0.0

    def look(self, pid: int, now: float) -> float:
        """Seconds that it has waited for a core so far; infinite if it could run now, or has ended.

        Several threads may wait at once, but no more time is counted than has gone by; of a thread that has ended, what
        was seen before.
        """
        delay, runnable = _scheduling(pid)
        self._total = min(self._total + max(delay - self._delay, 0.0), now - self._started)
        self._delay = delay
        return math.inf if runnable else self._total  # the system counts a wait when it is over


def _scheduling(pid: int) -> tuple[float, bool]:
    """Seconds that the threads of a process have waited, and whether one could run now, or all have ended.

    (0, False) where the system does not tell.
    """
    waited, states = 0, []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # it has just ended
                waited += int(_read(f"/proc/{pid}/task/{thread}/schedstat").split()[1])
                states.append(_read(f"/proc/{pid}/task/{thread}/stat").rsplit(b")", 1)[1].split()[0])
    return waited / 1e9, b"R" in states or states == [b"Z"]


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def ask(zygote: socket.socket, pid: int, started: float) -> float:
    """`Waits.look` by the zygote, since who serves tests cannot see /proc."""
    zygote.sendall(_QUESTION.pack(pid, started))
    (waited,) = _ANSWER.unpack(zygote.recv(_ANSWER.size))
    return float(waited)


class Answers:
    """The zygote's end of `ask`: one test at a time."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair()
        self._pid, self._started, self._waits = 0, 0.0, Waits(0.0)

    def answer(self) -> None:
        """Read a question and answer it."""
        question = self.socket.recv(_QUESTION.size)
        if not question:
            return
        pid, started = _QUESTION.unpack(question)
        if pid != self._pid or started != self._started:
            self._pid, self._started, self._waits = pid, started, Waits(started)
        with contextlib.suppress(OSError):
            self.socket.sendall(_ANSWER.pack(self._waits.look(pid, time.monotonic())))

    def close(self) -> None:
        self.socket.close()
        self.theirs.close()
