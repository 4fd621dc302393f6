"""The process of a program with several tests: it has compiled the program, and forks a process for each test.

It runs no byte of the program itself. Every page of memory that it or a test touches after a fork costs a fault, and
those are most of what a test costs; so all that tests have in common is done before the first, and the loop is short.
Standard library only.
"""

from __future__ import annotations

import math
import os
import select
import socket
import struct
import sys
import time
import types
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from cppo_lib.verifier.child import harness, sandbox, values
from cppo_lib.verifier.child.waiting import WEIGH_S, ask
from cppo_lib.verifier.child.wire import ALIVE, BEAT_S, OVER_CPU, OVER_DISK, OVER_WALL, REQUEST, WATCHED, send_report

_DESCRIPTOR = struct.Struct("=i")
_SPACE = socket.CMSG_SPACE(3 * _DESCRIPTOR.size)
TICK_S = 0.02
"""How often a running process is looked at."""


@dataclass(frozen=True)
class Program:
    """What tests share. `code` is a text, the reason, where the program does not compile."""

    kind: str
    function: str | None
    code: types.CodeType | str
    names: dict[str, Any]


class Test(NamedTuple):
    """A test under way: what the parent calls it, its process, when it began, CPU and wall seconds it may take."""

    number: int
    pid: int
    started: float
    cpu: float
    wall: float


def serve_tests(
    end: socket.socket, zygote: socket.socket, box: sandbox.Sandbox, program: Program, *, wakes: bool
) -> None:
    """Answer requests until the parent hangs up: (id, CPU seconds, wall seconds) with the descriptors of the report
    and of standard input and output, or of the arguments. `zygote` says how long a test has waited for a core; `wakes`
    that the system tells of a child's end."""
    code, me = program.code, os.getpid()
    while True:
        data, passed, _, _ = end.recvmsg(REQUEST.size, _SPACE)
        if not data:
            return
        fds = [fd for (fd,) in _DESCRIPTOR.iter_unpack(passed[0][2])]
        number, cpu, wall = REQUEST.unpack(data)
        started = time.monotonic()
        if isinstance(code, str):
            harness.report_unrunnable(fds[0], code)
            send_report(end, number, 1, ALIVE, 0.0, 0.0, 0.0)
        else:
            pid = os.fork()
            if pid == 0:
                _run(box, program, code, fds, me)
            ended = _finish(Test(number, pid, started, cpu, wall), end, zygote, wakes)
            if ended is None:
                return
            killed, status, usage = ended
            if os.listdir():
                sandbox.empty(".")
            used, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss
            send_report(end, number, status, killed, used, time.monotonic() - started, peak)
        for fd in fds:
            os.close(fd)


def _run(box: sandbox.Sandbox, program: Program, code: types.CodeType, fds: list[int], parent: int) -> NoReturn:
    try:
        if program.kind == "stdio":
            os.dup2(fds[1], 0)
            os.dup2(fds[2], 1)
        else:
            arguments = values.read_all(fds[1]).decode()
            os.dup2(box.null, 0)
            os.dup2(box.null, 1)
        box.seal(parent, [fds[0]])
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(harness.SETUP_FAILED)
    if program.kind == "stdio":
        harness.run(code, program.names, fds[0])
    harness.call(code, program.names, str(program.function), arguments, fds[0])


def _finish(test: Test, end: socket.socket, zygote: socket.socket, wakes: bool) -> tuple[int, int, Any] | None:
    """Wait for a test, and kill it at its limits: why it was killed, exit status, resources. None after a hang-up."""
    poll = select.poll()
    poll.register(end, 0)  # one test at a time: the next request waits, only a hang-up is heard
    handle = os.pidfd_open(test.pid) if wakes else None
    if handle is not None:
        poll.register(handle, select.POLLIN)
    killed, pid = ALIVE, test.pid
    looked = weighed = told = time.monotonic()
    try:
        while True:
            events = poll.poll(1000 * (TICK_S if wakes else TICK_S / 10))
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                return killed, os.waitstatus_to_exitcode(status), usage
            now = time.monotonic()
            hung_up = any(fd == end.fileno() for fd, _ in events)
            if killed == ALIVE and now - looked > TICK_S:
                late = -math.inf
                if now - weighed > WEIGH_S:
                    late, weighed = now - test.started - test.wall - ask(zygote, pid, test.started), now
                if now - told > BEAT_S:
                    send_report(end, test.number, 0, WATCHED, 0.0, 0.0, 0.0)
                    told = now
                killed, looked = over_limit(pid, test.cpu, late, "."), now
            if killed != ALIVE or hung_up:
                os.kill(pid, 9)
            if hung_up:
                os.waitpid(pid, 0)
                return None
    finally:
        if handle is not None:
            os.close(handle)


def over_limit(pid: int, cpu: float, late: float, folder: str | None) -> int:
    """Which limit a process is over, if any: CPU seconds, wall time (`late` above 0), or files in its box."""
    if _cpu_time(pid) > cpu:
        return OVER_CPU
    if late > 0:
        return OVER_WALL
    return OVER_DISK if folder is not None and sandbox.overfull(folder) else ALIVE


def _cpu_time(pid: int) -> float:
    """CPU seconds that another process has used; 0 where the system does not tell, and RLIMIT_CPU has to do."""
    try:
        return time.clock_gettime((~pid << 3) | 2) if sys.platform == "linux" else 0.0
    except OSError:  # it has just ended
        return 0.0
