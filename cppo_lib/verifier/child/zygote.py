"""The warm parent of all processes that run programs: forks, watches and reaps them, and knows nothing.

Run by `pool.Zygote` as `python -s -P -S -B -X utf8 zygote.py SOCKET BOXES PACKAGES` with a fixed environment. (`-I`
would ignore PYTHONHASHSEED too, so its parts are given one by one.) Programs, inputs and outputs travel in memory files
whose descriptors pass through here unread, so that no process can inherit another program's data.

A program with several tests gets a process of its own: it confines itself, compiles the program without running it,
and then serves tests over a channel of its own to the parent; each test is a fork of it (see `serving`).
That spares every test the compilation and most of the confinement. It never runs a byte of the program. A program
with one test is compiled and run in one process.

Messages are described in `Zygote._start`; the answer is one report (see `wire`) for each process that ended. At end of
file: kill, clean up, leave.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import resource
import select
import shutil
import socket
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

# The module `random` would have itself reseeded after every fork; here each program starts from the same state.
os.register_at_fork = lambda **_: None

# The package's own __init__ files must not run here: they would load the parent's side.
_folder = os.path.abspath(__file__)
for _name in ("cppo_lib.verifier.child", "cppo_lib.verifier", "cppo_lib"):
    _folder = os.path.dirname(_folder)
    _package = types.ModuleType(_name)
    _package.__path__ = [_folder]
    sys.modules[_name] = _package

from cppo_lib.verifier.child import harness, isolation, sandbox, values  # noqa: E402
from cppo_lib.verifier.child.serving import TICK_S, Program, over_limit, serve_tests  # noqa: E402
from cppo_lib.verifier.child.surroundings import COMPILE_S, RECURSION  # noqa: E402
from cppo_lib.verifier.child.waiting import WEIGH_S, Answers, Waits  # noqa: E402
from cppo_lib.verifier.child.wire import ALIVE, BEAT_S, WATCHED, Channel, Closed, send_report  # noqa: E402

STACK = 256 * isolation.MIB
IDLE_S = 2.0
_NO_RANDOM_ADDRESSES = 0x0040000
_LINUX = sys.platform == "linux"

SERVE_S, WATCH_SHARE = 0.02, 0.25
"""CPU seconds that a process that forks tests may use for each, and for each second that the test may take."""
Job = dict[str, Any]
Descriptors = dict[str, int]


@dataclass
class Child:
    """A running process, and what to kill it for; `asks` where its tests' waits for a core are asked for."""

    id: int
    pid: int
    slot: int
    started: float
    cpu: float
    wall: float
    waits: Waits
    asks: Answers | None = None
    killed: int = ALIVE


class Zygote:
    """Forks a process for each program, or for each side of a test in `assert` mode; one at a time in each slot."""

    def __init__(self, channel: Channel, box: sandbox.Sandbox, wakes: bool) -> None:
        self.channel, self.sandbox, self.wakes = channel, box, wakes
        self.pid, self.parent = os.getpid(), os.getppid()
        self.children: list[Child] = []
        self.handles: dict[int, int] = {}  # process id to a descriptor that ends a poll
        self.poll = select.poll()
        self.poll.register(channel, select.POLLIN)
        self.weighed = self.told = 0.0

    def serve(self) -> None:
        """Answer messages until the parent hangs up or dies."""
        while os.getppid() == self.parent:
            waiting = IDLE_S if not self.children else TICK_S if self.wakes else TICK_S / 10
            for fd, event in self.poll.poll(1000 * waiting):
                if fd == self.channel.fileno() and not self._listen(event):
                    return
                for asks in [child.asks for child in self.children if child.asks]:
                    if asks.socket.fileno() == fd:
                        asks.answer()
            self._watch()
            self._reap()

    def _listen(self, event: int) -> bool:
        try:
            if not event & select.POLLIN:
                return False  # hung up, with nothing left to read
            for job, fds in self.channel.receive():
                self._start(job, fds)
                for fd in fds.values():
                    os.close(fd)
        except Closed:
            return False
        return True

    def _start(self, job: Job, fds: Descriptors) -> None:
        """{"id", "slot", "kind", "tests", "prelude", "function", "memory", "file", "cpu", "wall"} and a `source`.

        With a descriptor `channel` the program has several tests, otherwise all that its one test needs comes along.
        What still runs in the slot is ended first.
        """
        self.end([child for child in self.children if child.slot == job["slot"]])
        several = "channel" in fds
        cpu, wall = (serving_time(job), math.inf) if several else (job["cpu"], job["wall"])
        started, asks = time.monotonic(), Answers() if several else None
        pid = os.fork()
        if pid == 0:
            if asks is None:
                self._run_alone(job, fds)
            self._serve_program(job, fds, asks.theirs)
        self.children.append(Child(job["id"], pid, job["slot"], started, cpu, wall, Waits(started), asks))
        if asks is not None:
            asks.theirs.close()
            self.poll.register(asks.socket, select.POLLIN)
        if self.wakes:
            self.handles[pid] = os.pidfd_open(pid)
            self.poll.register(self.handles[pid], select.POLLIN)

    def _watch(self) -> None:
        """Kill a process that is over its CPU time, its wall time or its disk quota."""
        now = time.monotonic()
        waited = self._weigh(now)
        for child in self.children:
            running = now - child.started
            if child.killed == ALIVE and running >= TICK_S:
                folder = self.sandbox.boxes[child.slot] if child.wall < math.inf else None
                child.killed = over_limit(child.pid, child.cpu, running - child.wall - waited, folder)
                if child.killed != ALIVE:
                    os.kill(child.pid, 9)

    def _weigh(self, now: float) -> float:
        """Seconds that the children have waited for a core, infinite if their wall time cannot be up now.

        Of two that work together one sleeps while the other waits: neither's time counts then. From time to time it is
        said that they are watched and will end; one that serves tests says so itself, but not while it compiles.
        """
        if not self.children or now - max(self.weighed, self.children[0].started) < WEIGH_S:
            return math.inf
        self.weighed = now
        waited = [child.waits.look(child.pid, now) for child in self.children]
        watched = any(child.wall < math.inf for child in self.children) or math.inf in waited
        if watched and now - max(self.told, self.children[0].started) > BEAT_S:
            self.told = now
            send_report(self.channel.socket, self.children[0].id, 0, WATCHED, 0.0, 0.0, 0.0)
        return sum(waited)

    def _reap(self) -> None:
        for child in list(self.children):
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                self._forget(child)
                wall = time.monotonic() - child.started
                self.channel.report(child.id, os.waitstatus_to_exitcode(status), child.killed, wall, usage)

    def _forget(self, child: Child) -> None:
        """Strike a child that has been waited for off the list, and delete what it left."""
        self.children.remove(child)
        if handle := self.handles.pop(child.pid, None):
            self.poll.unregister(handle)
            os.close(handle)
        if child.asks is not None:
            self.poll.unregister(child.asks.socket)
            child.asks.close()
        sandbox.empty(self.sandbox.boxes[child.slot])

    def end(self, children: list[Child]) -> None:
        """End children without a report. One that serves tests has been hung up on and ends by itself."""
        for child in list(children):
            patience = time.monotonic() + (1.0 if child.wall == math.inf else 0.0)
            while os.waitpid(child.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > patience:
                    os.kill(child.pid, 9)
                    os.waitpid(child.pid, 0)
                    break
                time.sleep(0.001)
            self._forget(child)

    # In a child ------------------------------------------------------------------------------
    def _run_alone(self, job: Job, fds: Descriptors) -> NoReturn:
        with failing_setup():
            self.sandbox.enter(job["slot"], job["memory"], job["file"])
        run_test(self.sandbox, job, fds, self.pid)

    def _serve_program(self, job: Job, fds: Descriptors, zygote: socket.socket) -> NoReturn:
        with failing_setup():
            self.sandbox.enter(job["slot"], job["memory"], job["file"])
            isolation.stay_on_this_core()
            isolation.die_with(self.pid)
            ceiling = math.ceil(max(serving_time(job), job["cpu"])) + 2
            isolation.limit_cpu(math.ceil(COMPILE_S), ceiling)
            source = read_source(fds)
            end = socket.socket(fileno=fds["channel"])
            sandbox.close_all_but([fds["channel"], zygote.fileno(), self.sandbox.null, *self.sandbox.kept])
            code = harness.compiled(source)
            # From here on also the back-stop of its tests, which inherit it and are watched from here
            isolation.limit_cpu(ceiling, ceiling)
            sys.setrecursionlimit(RECURSION[job["prelude"]])
            names = begin(self.sandbox, job)
            gc.enable()
            serve_tests(end, zygote, self.sandbox, Program(job["kind"], job["function"], code, names), wakes=self.wakes)
        os._exit(0)


@contextlib.contextmanager
def failing_setup() -> Iterator[None]:
    """Turn any exception before a program runs into the exit status that stands for it."""
    try:
        yield
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(harness.SETUP_FAILED)


def read_source(fds: Descriptors) -> str:
    """The program's text, which may hold lone surrogates."""
    return values.read_all(fds["source"]).decode("utf-8", "surrogatepass")


def begin(box: sandbox.Sandbox, job: Job) -> dict[str, Any]:
    """The global names of a program: of a script, or of a module whose function will be called."""
    return harness.begin(box.known[job["prelude"]], "__main__" if job["kind"] == "stdio" else "solution")


def run_test(box: sandbox.Sandbox, job: Job, fds: Descriptors, parent: int) -> NoReturn:
    """Seal this process, compile a program and run its one test."""
    with failing_setup():
        source = read_source(fds)
        arguments = values.read_all(fds["arguments"]).decode() if "arguments" in fds else ""
        os.dup2(fds.get("stdin", box.null), 0)
        os.dup2(fds.get("stdout", box.null), 1)
        kept = {name: fds[name] for name in ("report", "inbox", "outbox") if name in fds}
        cpu_s = math.ceil(job["cpu"]) + 1
        isolation.limit_cpu(cpu_s, cpu_s + 1)
        box.seal(parent, list(kept.values()))
        gc.enable()
        sys.setrecursionlimit(RECURSION[job["prelude"]])
    if job["kind"] == "check":
        harness.check(source, box.known[job["prelude"]], job["function"], **kept)
    names = begin(box, job)
    code = harness.compiled(source)
    if isinstance(code, str):
        harness.report_unrunnable(kept["report"], code)
        os._exit(1)
    match job["kind"]:
        case "stdio":
            harness.run(code, names, **kept)
        case "call":
            harness.call(code, names, job["function"], arguments, **kept)
        case _:
            harness.serve(code, names, job["function"], **kept)


def serving_time(job: Job) -> float:
    """CPU seconds for compiling a program and serving its tests: a program may fill its box and make watching dear."""
    return float(COMPILE_S + job["tests"] * (SERVE_S + WATCH_SHARE * job["wall"]))


def main(arguments: list[str]) -> None:
    """Entry point: enlarge the stack and fix addresses (both need a fresh exec), then serve."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    wanted = STACK if hard == resource.RLIM_INFINITY else min(STACK, hard)
    if resource.getrlimit(resource.RLIMIT_STACK)[0] != wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        if _LINUX:
            ctypes.CDLL(None).personality(_NO_RANDOM_ADDRESSES)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    control, folder, packages, wakes = arguments
    # Two zygotes in bubblewrap have the same process id, but no two of a system have the same socket.
    box = sandbox.Sandbox(folder, packages, os.fstat(int(control)).st_ino)
    channel = Channel(socket.socket(fileno=int(control)))
    zygote = Zygote(channel, box, wakes == "wakes" and hasattr(os, "pidfd_open"))
    try:
        box.prepare()
        channel.send({"mechanisms": box.mechanisms})
        zygote.serve()
        zygote.end(zygote.children)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
