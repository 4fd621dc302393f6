"""The warm parent of all test processes: a small interpreter that forks, isolates, watches and reaps, and knows nothing.

Run as `python -s -P -S -B -X utf8 zygote.py SOCKET BOXES PARENT` by `pool.Zygote`, in an environment of a few fixed
variables. (`-I` would also ignore PYTHONHASHSEED, so its parts are given one by one.) Programs, inputs and outputs travel
in memory files whose descriptors pass through here unread, so that no test process can inherit another's data.

Messages on the socket are JSON, one per packet. In: {"id", "kind", "slot", "cpu", "wall", "memory", "prelude",
"function", "fds": names of the descriptors that came along}. Out: first {"layers": ...}, then one
{"id", "status", "killed", "cpu", "wall", "rss"} per test process. End of file: kill everything, clean up, leave.
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
from dataclasses import dataclass
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
harness = importlib.import_module("harness")
isolation = importlib.import_module("isolation")
del sys.path[0]

SLOTS = 2
STACK = 256 * isolation.MIB
TICK_S = 0.02
IDLE_S = 2.0
BOX_FILES, BOX_BYTES = 256, 64 * isolation.MIB
_NO_RANDOM_ADDRESSES = 0x0040000

STARRED = [
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics",
    "itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing",
]  # fmt: skip
"""LiveCodeBench puts these star imports, then the plain imports, before every program."""
PRELOADED = [
    *STARRED, "abc", "array", "ast", "base64", "bz2", "calendar", "cmath", "collections.abc", "ctypes",
    "dataclasses", "decimal", "difflib", "enum", "fractions", "hashlib", "lzma", "numbers", "pprint", "secrets",
    "signal", "struct", "textwrap", "time", "timeit", "traceback", "types", "unicodedata", "uuid", "weakref",
    "zlib", "encodings.ascii", "encodings.latin_1", "encodings.idna",
]  # fmt: skip
"""Everything common, and what needs a shared library (which a test process could not open). Not `threading`: its
handler for forks costs every test process 0.4 ms, whether it uses threads or not."""
_RECURSION = {"lcb": 50_000, "none": 1000}


@dataclass
class Child:
    """A running test process: what to kill it for."""

    id: int
    pid: int
    slot: int
    started: float
    cpu: float
    wall: float
    killed: str = ""


def prelude(name: str) -> dict[str, Any]:
    """Names that a program finds without importing them."""
    names: dict[str, Any] = {}
    if name == "lcb":
        for module in STARRED:
            exec(f"from {module} import *", names)
        for module in STARRED[:-2]:
            exec(f"import {module}", names)
    names.pop("__builtins__", None)
    return names


def standard_library() -> tuple[list[str], list[str]]:
    """Paths a program may read (library files, without installed packages) and folders it may only list."""
    folders = [path for path in sys.path if os.path.isdir(path)]
    skipped = {"site-packages", "dist-packages", "test", "idlelib", "ensurepip"}
    readable = [entry.path for folder in folders for entry in os.scandir(folder) if entry.name not in skipped]
    return [*readable, *(path for path in ("/usr/share/zoneinfo",) if os.path.isdir(path))], folders


def reach_library_without_path() -> list[int]:
    """Import the library through open folders, so that it can be read from where the parent folders are private.

    Returns the descriptors that must stay open; they replace the real folders in `sys.path` and in every package.
    """
    kept = []
    for folder in [path for path in sys.path if os.path.isdir(path)]:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        kept.append(fd)
        through = f"/proc/self/fd/{fd}"
        sys.path = [through if path == folder else path for path in sys.path]
        for module in list(sys.modules.values()):
            parts = getattr(module, "__path__", None)
            if isinstance(parts, list):
                parts[:] = [through + part[len(folder) :] if part.startswith(folder + "/") else part for part in parts]
    sys.path_importer_cache.clear()
    return kept


class Server:
    """The zygote's state and its loop."""

    def __init__(self, control: socket.socket, boxes: str, parent: int) -> None:
        self.control, self.boxes, self.parent = control, boxes, parent
        self.pid = os.getpid()
        self.children: dict[int, Child] = {}
        self.layers: dict[str, str] = {}
        self.uid: int | None = 60_001 + self.pid % 5000 if os.geteuid() == 0 else None
        self.rulesets: list[int] = []
        self.box_fds: list[int] = []
        self.kept: list[int] = []
        self.null = os.open(os.devnull, os.O_RDWR)
        self.poll = select.poll()

    def prepare(self) -> None:
        """Load modules, build rulesets, harden this process, and note which layers could be set up."""
        for name in PRELOADED:
            importlib.import_module(name)
        harness.open_streams()
        self.known = {name: harness.namespace(prelude(name)) for name in _RECURSION}
        for slot in range(SLOTS):
            box = os.path.join(self.boxes, str(slot))
            os.mkdir(box, 0o700)
            if self.uid is not None:
                os.chown(box, self.uid, self.uid)
            self.box_fds.append(os.open(box, os.O_RDONLY | os.O_DIRECTORY))
        self._try("landlock", self._open_rulesets)
        if self.uid is not None:
            self.kept = reach_library_without_path()
        sys.set_int_max_str_digits(50_000)  # as LiveCodeBench does
        _thread.stack_size(8 * isolation.MIB)  # a thread would otherwise reserve as much as the main stack
        isolation.harden_self()
        self._try("seccomp", self._filter_calls)
        gc.collect()
        gc.disable()
        gc.freeze()

    def _open_rulesets(self) -> None:
        readable, listable = standard_library()
        devices = ["/dev/null", "/dev/zero", "/dev/urandom"]
        for slot in range(SLOTS):
            box = os.path.join(self.boxes, str(slot))
            self.rulesets.append(isolation.open_ruleset(readable, listable, devices, box))

    def _filter_calls(self) -> None:
        isolation.forbid_privileged_calls()
        self.filter = isolation.TestFilter()

    def _try(self, layer: str, step: Any) -> None:
        try:
            step()
            self.layers[layer] = "ok"
        except OSError as error:
            self.layers[layer] = f"missing: {error.strerror or error}"

    def serve(self) -> None:
        """Answer messages until the parent hangs up or dies."""
        self.poll.register(self.control, select.POLLIN)
        self.control.send(json.dumps({"layers": self.layers, "landlock_abi": isolation.landlock_abi()}).encode())
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
        self.children[handle] = Child(job["id"], pid, job["slot"], started, job["cpu"], job["wall"])
        self.poll.register(handle, select.POLLIN)

    def _become(self, job: dict[str, Any], fds: dict[str, int]) -> None:
        """In the child: take descriptors, limits, identity and confinement, then run the job. Never returns."""
        os.setsid()
        os.fchdir(self.box_fds[job["slot"]])
        ruleset = self.rulesets[job["slot"]] if self.rulesets else None
        source = harness.read_all(fds["source"]).decode("utf-8", "surrogatepass")
        arguments = harness.read_all(fds["arguments"]).decode() if "arguments" in fds else ""
        os.dup2(fds.get("stdin", self.null), 0)
        os.dup2(fds.get("stdout", self.null), 1)
        kept = {name: fds[name] for name in ("report", "inbox", "outbox") if name in fds}
        isolation.set_limits(
            cpu_s=math.ceil(job["cpu"]) + 1, memory_mb=job["memory"], own_user=self.uid is not None
        )
        if self.uid is not None:
            isolation.drop_to(self.uid)
        if ruleset is not None:
            isolation.enforce_ruleset(ruleset)
        if self.layers["seccomp"] == "ok":
            self.filter.confine()
        os.dup2(self.null, 2)
        close_all_but([*kept.values(), *self.kept])
        gc.enable()
        sys.setrecursionlimit(_RECURSION[job["prelude"]])
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

    def _watch(self, child: Child, now: float) -> None:
        """Kill a test process that is over its CPU time, its wall time or its disk quota."""
        with contextlib.suppress(OSError):
            if time.clock_gettime((~child.pid << 3) | 2) > child.cpu:
                child.killed = "cpu"
        if now - child.started > child.wall:
            child.killed = child.killed or "wall"
        sizes = [entry.stat(follow_symlinks=False).st_blocks * 512 for entry in self._box(child.slot)]
        if len(sizes) > BOX_FILES or sum(sizes) > BOX_BYTES:
            child.killed = child.killed or "disk"
        if child.killed:
            os.kill(child.pid, 9)

    def _box(self, slot: int) -> list[os.DirEntry[str]]:
        with contextlib.suppress(OSError), os.scandir(os.path.join(self.boxes, str(slot))) as entries:
            return [entry for _, entry in zip(range(BOX_FILES + 1), entries, strict=False)]
        return []

    def _empty_box(self, slot: int) -> None:
        os.fchmod(self.box_fds[slot], 0o700)
        while entries := self._box(slot):
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)

    def _reap(self, handle: int) -> None:
        child = self.children.pop(handle)
        self.poll.unregister(handle)
        os.close(handle)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - child.started
        self._empty_box(child.slot)
        report = {
            "id": child.id, "status": os.waitstatus_to_exitcode(status), "killed": child.killed,
            "cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "rss": usage.ru_maxrss / 1024,
        }  # fmt: skip
        self.control.send(json.dumps(report).encode())

    def close(self) -> None:
        """Kill what still runs and remove the boxes."""
        for child in self.children.values():
            os.kill(child.pid, 9)
            os.waitpid(child.pid, 0)
        shutil.rmtree(self.boxes, ignore_errors=True)


def close_all_but(kept: list[int]) -> None:
    """Close every descriptor above 2 except `kept`."""
    edge = 3
    for fd in [*sorted(kept), 1 << 20]:
        os.closerange(edge, fd)
        edge = fd + 1


def main(arguments: list[str]) -> None:
    """Entry point: enlarge the stack (which needs a fresh exec), then serve."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
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
