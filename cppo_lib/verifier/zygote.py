"""The warm parent of all test processes: forks, isolates, watches and reaps them, and knows
nothing.

Run by `pool.Zygote` as `python -s -P -S -B -X utf8 zygote.py SOCKET BOXES PARENT` with a fixed
environment. (`-I` would ignore PYTHONHASHSEED too, so its parts are given one by one.) Programs,
inputs and outputs travel in memory files whose descriptors pass through here unread, so that no
test process can inherit another's data.

Messages on the socket are JSON, one per packet. In: {"id", "kind", "slot", "cpu", "wall", "memory",
"prelude", "function", "fds": names of the descriptors that came along}. Out: first {"mechanisms":
...}, then one {"id", "status", "killed", "cpu", "wall", "rss"} per test process. At end of file:
kill, clean up, leave.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import resource
import select
import shutil
import socket
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# The package's own __init__ files must not run here: they would load the parent's side.
_HERE = os.path.dirname(os.path.abspath(__file__))
for _name, _folder in (("cppo_lib", os.path.dirname(_HERE)), ("cppo_lib.verifier", _HERE)):
    _package = types.ModuleType(_name)
    _package.__path__ = [_folder]
    sys.modules[_name] = _package

from cppo_lib.verifier import harness, isolation, surroundings, values  # noqa: E402

SLOTS = 2
STACK = 256 * isolation.MIB
THREAD_STACK = 8 * isolation.MIB
TICK_S, IDLE_S = 0.02, 2.0
BOX_FILES, BOX_BYTES = 256, 64 * isolation.MIB
_NO_RANDOM_ADDRESSES = 0x0040000


@dataclass
class Child:
    """A running test process, and what to kill it for."""

    id: int
    pid: int
    slot: int
    started: float
    cpu: float
    wall: float
    killed: str = ""


class Server:
    """The zygote's state and its loop."""

    def __init__(self, control: socket.socket, boxes: str, parent: int) -> None:
        self.control, self.parent = control, parent
        self.boxes = [os.path.join(boxes, str(slot)) for slot in range(SLOTS)]
        self.box_fds: list[int] = []
        self.children: dict[int, Child] = {}
        self.mechanisms: dict[str, str] = {}
        self.uids: list[int] = []
        self.rulesets: list[int] = []
        self.filter: isolation.CallFilter | None = None
        self.kept: list[int] = []
        self.null = os.open(os.devnull, os.O_RDWR)
        self.poll = select.poll()

    # Preparation -----------------------------------------------------------------------------
    def prepare(self) -> None:
        """Load modules, set up every mechanism that this machine grants, harden this process."""
        for name in surroundings.PRELOADED:
            importlib.import_module(name)
        for box in self.boxes:
            os.mkdir(box, 0o700)
            self.box_fds.append(os.open(box, os.O_RDONLY | os.O_DIRECTORY))
        self._try("landlock", self._open_rulesets)
        if os.geteuid() == 0:
            self._try("identity", self._take_identities)
        sys.set_int_max_str_digits(50_000)  # as LiveCodeBench does
        _thread.stack_size(THREAD_STACK)  # a thread would otherwise reserve as much as the main stack
        harness.open_streams()
        self.known = {name: harness.namespace(surroundings.prelude(name)) for name in surroundings.RECURSION}
        for name in [name for name in sys.modules if name.split(".")[0] == "cppo_lib"]:
            del sys.modules[name]
        isolation.harden_self()
        self._try("seccomp", self._filter_calls)
        gc.collect()
        gc.disable()
        gc.freeze()

    def _try(self, mechanism: str, step: Callable[[], None]) -> None:
        try:
            step()
            self.mechanisms[mechanism] = "ok"
        except OSError as error:
            self.mechanisms[mechanism] = str(error)

    def _open_rulesets(self) -> None:
        readable, listable = surroundings.library()
        self.rulesets = [isolation.open_ruleset(readable, listable, box) for box in self.boxes]

    def _take_identities(self) -> None:
        """As root: give each slot a user id of its own, after a trial in a child."""
        first = 60_002 + os.getpid() % 2500 * SLOTS
        folders = [path for path in sys.path if os.path.isdir(path)]
        pid = os.fork()
        if pid == 0:
            status = 1
            with contextlib.suppress(OSError):
                isolation.drop_to(first)
                status = 0 if all(os.access(path, os.R_OK | os.X_OK) for path in folders) else 2
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status not in (0, 2):
            raise PermissionError("root may not change its user id here")
        self.uids = [first + slot for slot in range(SLOTS)]
        for box, uid in zip(self.boxes, self.uids, strict=True):
            os.chown(box, uid, uid)
        if status == 2:
            self.kept = surroundings.hold_library_open()

    def _filter_calls(self) -> None:
        self.filter = isolation.CallFilter()

    # The loop --------------------------------------------------------------------------------
    def serve(self) -> None:
        """Answer messages until the parent hangs up or dies."""
        self.poll.register(self.control, select.POLLIN)
        self.control.send(json.dumps({"mechanisms": self.mechanisms}).encode())
        while True:
            ready = self.poll.poll(1000 * (TICK_S if self.children else IDLE_S))
            for fd, _ in ready:
                if fd == self.control.fileno():
                    data, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 16)
                    if not data:
                        return
                    self._spawn(json.loads(data), fds)
                else:
                    self._reap(fd)
            if not ready and os.getppid() != self.parent:
                return
            now = time.monotonic()
            for child in self.children.values():
                if not child.killed and now - child.started > TICK_S:
                    self._watch(child, now)

    def _spawn(self, job: dict[str, Any], fds: list[int]) -> None:
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                self._become(job, dict(zip(job["fds"], fds, strict=True)))
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(harness.SETUP_FAILED)
        for fd in fds:
            os.close(fd)
        handle = os.pidfd_open(pid)
        child = Child(job["id"], pid, job["slot"], started, job["cpu"], job["wall"])
        self.children[handle] = child
        self.poll.register(handle, select.POLLIN)

    def _watch(self, child: Child, now: float) -> None:
        """Kill a test process that is over its CPU time, its wall time or its disk quota."""
        process_clock = (~child.pid << 3) | 2
        sizes = self._box_sizes(child.slot)
        if time.clock_gettime(process_clock) > child.cpu:
            child.killed = "cpu"
        elif now - child.started > child.wall:
            child.killed = "wall"
        elif len(sizes) > BOX_FILES or sum(sizes) > BOX_BYTES:
            child.killed = "disk"
        if child.killed:
            os.kill(child.pid, 9)

    def _reap(self, handle: int) -> None:
        child = self.children.pop(handle)
        self.poll.unregister(handle)
        os.close(handle)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - child.started
        self._empty_box(child.slot)
        report = {
            "id": child.id,
            "status": os.waitstatus_to_exitcode(status),
            "killed": child.killed,
            "cpu": usage.ru_utime + usage.ru_stime,
            "wall": wall,
            "rss": usage.ru_maxrss / 1024,
        }
        self.control.send(json.dumps(report).encode())

    def _box(self, slot: int) -> list[os.DirEntry[str]]:
        """Entries of a box, at most one more than may be there."""
        with os.scandir(self.boxes[slot]) as entries:
            return [entry for _, entry in zip(range(BOX_FILES + 1), entries, strict=False)]

    def _box_sizes(self, slot: int) -> list[int]:
        """Bytes on disk of each file in a box, while a program may be changing it."""
        sizes = []
        with contextlib.suppress(OSError):
            for entry in self._box(slot):
                sizes.append(entry.stat(follow_symlinks=False).st_blocks * 512)
        return sizes

    def _empty_box(self, slot: int) -> None:
        while entries := self._box(slot):
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)

    # In the test process ---------------------------------------------------------------------
    def _become(self, job: dict[str, Any], fds: dict[str, int]) -> None:
        """Take descriptors, limits, identity and confinement, then run the job. Never returns."""
        slot = job["slot"]
        os.setsid()
        os.fchdir(self.box_fds[slot])
        source = values.read_all(fds["source"]).decode("utf-8", "surrogatepass")
        arguments = values.read_all(fds["arguments"]).decode() if "arguments" in fds else ""
        os.dup2(fds.get("stdin", self.null), 0)
        os.dup2(fds.get("stdout", self.null), 1)
        kept = {name: fds[name] for name in ("report", "inbox", "outbox") if name in fds}
        cpu_s = math.ceil(job["cpu"]) + 1
        isolation.set_limits(cpu_s=cpu_s, memory_mb=job["memory"], own_user=bool(self.uids))
        if self.uids:
            isolation.drop_to(self.uids[slot])
        if self.rulesets:
            isolation.enforce_ruleset(self.rulesets[slot])
        if self.filter:
            self.filter.confine()
        os.dup2(self.null, 2)
        close_all_but([*kept.values(), *self.kept])
        gc.enable()
        sys.setrecursionlimit(surroundings.RECURSION[job["prelude"]])
        known = self.known[job["prelude"]]
        match job["kind"]:
            case "stdio":
                harness.run(source, known, **kept)
            case "call":
                harness.call(source, known, job["function"], arguments, **kept)
            case "program":
                harness.serve(source, known, job["function"], **kept)
            case "check":
                harness.check(source, known, job["function"], **kept)

    def close(self) -> None:
        """Kill what still runs and remove the boxes."""
        for child in self.children.values():
            os.kill(child.pid, 9)
            os.waitpid(child.pid, 0)
        shutil.rmtree(os.path.dirname(self.boxes[0]), ignore_errors=True)


def close_all_but(kept: list[int]) -> None:
    """Close every descriptor above 2 except `kept`."""
    edge = 3
    for fd in [*sorted(kept), 1 << 20]:
        os.closerange(edge, fd)
        edge = fd + 1


def main(arguments: list[str]) -> None:
    """Entry point: enlarge the stack and fix addresses (both need a fresh exec), then serve."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    wanted = STACK if hard == resource.RLIM_INFINITY else min(STACK, hard)
    if resource.getrlimit(resource.RLIMIT_STACK)[0] != wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        ctypes.CDLL(None).personality(_NO_RANDOM_ADDRESSES)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    server = Server(socket.socket(fileno=int(arguments[0])), arguments[1], int(arguments[2]))
    try:
        server.prepare()
        server.serve()
    finally:
        server.close()


if __name__ == "__main__":
    main(sys.argv[1:])
