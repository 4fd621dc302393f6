"""Verifiers that judge at the same time share the machine's cores: together they have no more workers than there are.

Runs of a series go side by side, each with a verifier of its own. While one judges it holds an abstract socket, whose
name the others see in /proc/net/unix. Such a socket is no file, nobody connects to it, and it ends with its process,
however that ends; so there is nothing to wait for, to clean up or to be blocked by. Where there is no Linux, or in
another network namespace, nobody is seen.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from pathlib import Path

from cppo_lib.verifier.cores import usable_cores

_NAME = "cppo-judging-"
_COUNT_S = 0.25
"""How long a count of the others holds."""
_numbers = itertools.count()


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
