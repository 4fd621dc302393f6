"""Messages between the verifier's own processes, over stream sockets, with descriptors beside them.

Jobs for a zygote are JSON lines. What comes once per test is of fixed size: requests for a program's process, and the
reports of how a process ended. Standard library only. Nothing that runs a program holds a descriptor of such a socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import struct
import sys
from typing import Any

REQUEST = struct.Struct("=Qdd")
"""One test: id, CPU seconds, wall seconds."""
REPORT = struct.Struct("=QiBdddB")
"""One process that ended: id, exit status or minus the signal, the limit it was killed for, CPU and wall seconds, peak
memory as the system counts it (KiB on Linux, bytes elsewhere), and an end mark."""
ALIVE, OVER_CPU, OVER_WALL, OVER_DISK, WATCHED = range(5)
KILLED = ("", "cpu", "wall", "disk", "not yet")
"""Names of the limits that a process can be killed for; the first: none; the last: it runs, and is being watched."""
BEAT_S = 1.0
"""How often who watches a process says so."""
_END = 0xA5
_PEAKS_PER_MIB = 1024 if sys.platform == "linux" else 1 << 20
_PIECE = 1 << 16
_MOST_DESCRIPTORS = 8


class Closed(Exception):
    """The other side hung up, or what it sends is no message."""


def send_report(
    end: socket.socket, number: int, status: int, killed: int, cpu: float, wall: float, peak: float
) -> None:
    """Send a `REPORT`; at a hang-up nobody wants it any more."""
    with contextlib.suppress(OSError):
        end.sendall(REPORT.pack(number, status, killed, cpu, wall, peak / _PEAKS_PER_MIB, _END))


class Channel:
    """One end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._part = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def send(self, message: dict[str, Any], descriptors: dict[str, int] | None = None) -> None:
        """Send a message; the sender keeps its descriptors. Raises Closed."""
        named = descriptors or {}
        data = json.dumps({**message, "names": list(named)}).encode() + b"\n"
        try:
            if named:
                socket.send_fds(self.socket, [data], list(named.values()))
            else:
                self.socket.sendall(data)
        except OSError:
            raise Closed from None

    def request(self, number: int, cpu: float, wall: float, descriptors: list[int]) -> None:
        """Send a `REQUEST`; the sender keeps its descriptors. Raises Closed."""
        try:
            socket.send_fds(self.socket, [REQUEST.pack(number, cpu, wall)], descriptors)
        except OSError:
            raise Closed from None

    def report(self, number: int, status: int, killed: int, wall: float, usage: resource.struct_rusage) -> None:
        """Send a `REPORT`."""
        cpu = usage.ru_utime + usage.ru_stime
        send_report(self.socket, number, status, killed, cpu, wall, usage.ru_maxrss)

    def reports(self) -> list[tuple[int, int, str, float, float, float]]:
        """The reports that have arrived, waiting for something to arrive. Raises Closed."""
        try:
            data = self.socket.recv(_PIECE)
        except OSError:
            raise Closed from None
        if not data:
            raise Closed
        data = self._part + data
        whole = len(data) - len(data) % REPORT.size
        self._part = data[whole:]
        found = []
        for number, status, killed, cpu, wall, mib, mark in REPORT.iter_unpack(data[:whole]):
            if mark != _END or killed >= len(KILLED):
                raise Closed
            found.append((number, status, KILLED[killed], cpu, wall, mib))
        return found

    def receive(self) -> list[tuple[dict[str, Any], dict[str, int]]]:
        """What has arrived, waiting for something to arrive: messages with the descriptors that came along.

        A read never crosses from one message with descriptors into another, so those that came belong to the one
        message that names some. Raises Closed.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(self.socket, _PIECE, _MOST_DESCRIPTORS)
        except OSError:
            raise Closed from None
        if not data:
            raise Closed
        *lines, self._part = (self._part + data).split(b"\n")
        messages = []
        try:
            for line in lines:
                message = json.loads(line)
                names = message.pop("names")
                messages.append((message, dict(zip(names, descriptors, strict=False)) if names else {}))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            for fd in descriptors:
                os.close(fd)
            raise Closed from None
        return messages


def pair() -> tuple[Channel, socket.socket]:
    """Our end, and the other as a plain socket whose descriptor can be handed on."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), theirs
