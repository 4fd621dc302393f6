"""What a zygote makes ready once, and what each of its children then does to confine itself.

The order in a child: a box as working directory, limits, another user id (as root), Landlock; that is `enter`. A
process that is about to run a program then gives up making processes, signalling others and every descriptor but its
own; that is `seal`. Standard library only.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import importlib
import os
import random
import shutil
import sys
import types
from collections.abc import Callable

from cppo_lib.verifier.child import harness, isolation, surroundings

SLOTS = 2
THREAD_STACK = 8 * isolation.MIB
BOX_FILES, BOX_BYTES = 256, 64 * isolation.MIB


class Sandbox:
    """Modules, preludes, boxes and every mechanism that this machine grants; `number` tells this zygote from others.

    Attributes:
        mechanisms: `landlock`, `seccomp` and (as root) `identity`: "ok" or what went wrong.
        known: built-in names by prelude; null: /dev/null; kept: descriptors that every process keeps.
    """

    def __init__(self, folder: str, packages: str, number: int) -> None:
        self.boxes = [os.path.join(folder, str(slot)) for slot in range(SLOTS)]
        self.box_fds: list[int] = []
        self.mechanisms: dict[str, str] = {}
        self.known: dict[str, types.ModuleType] = {}
        self.null = os.open(os.devnull, os.O_RDWR)
        self._packages, self._number = packages, number
        self._uids: list[int] = []
        self._rulesets: list[int] = []
        self._filter: isolation.CallFilter | None = None
        self.kept: list[int] = []

    def prepare(self) -> None:
        """Load modules, set up every mechanism, harden this process."""
        for name in surroundings.PRELOADED:
            importlib.import_module(name)
        random.seed(0)
        if self._packages:
            sys.path.append(self._packages)
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
        self._try("hardening", isolation.harden_self)
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
        readable, listable = surroundings.library(self._packages)
        self._rulesets = [isolation.open_ruleset(readable, listable, box) for box in self.boxes]

    def _take_identities(self) -> None:
        """As root: give each slot a user id of its own, after a trial in a child."""
        first = 60_002 + self._number % 2500 * SLOTS
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
        self._uids = [first + slot for slot in range(SLOTS)]
        for box, uid in zip(self.boxes, self._uids, strict=True):
            os.chown(box, uid, uid)
        if status == 2:
            self.kept = surroundings.hold_library_open()

    def _filter_calls(self) -> None:
        self._filter = isolation.CallFilter()

    # In a child ------------------------------------------------------------------------------
    def enter(self, slot: int, memory_mb: int, file_bytes: int) -> None:
        """Move into a box and take on limits, identity and file rules. Raises OSError."""
        os.setpgid(0, 0)
        os.fchdir(self.box_fds[slot])
        isolation.set_limits(memory_mb=memory_mb, file_bytes=file_bytes, own_user=bool(self._uids))
        if self._uids:
            isolation.drop_to(self._uids[slot])
        if self._rulesets:
            isolation.enforce_ruleset(self._rulesets[slot])

    def seal(self, parent: int, kept: list[int]) -> None:
        """The last step before a program runs: only the descriptors 0 to 2 and `kept` stay. Raises OSError."""
        isolation.die_with(parent)
        if self._filter:
            self._filter.confine()
        os.dup2(self.null, 2)
        close_all_but([*kept, *self.kept])


def overfull(folder: str) -> bool:
    """Whether a box holds too many or too large files, while a program may be changing them."""
    sizes = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry, _ in zip(entries, range(BOX_FILES + 1), strict=False):
            sizes.append(entry.stat(follow_symlinks=False).st_blocks * 512)
    return len(sizes) > BOX_FILES or sum(sizes) > BOX_BYTES


def empty(folder: str) -> None:
    """Delete what is in a box (folders only where the layer that forbids them is missing)."""
    while entries := [entry for entry, _ in zip(os.scandir(folder), range(BOX_FILES), strict=False)]:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def close_all_but(kept: list[int]) -> None:
    """Close every descriptor above 2 except `kept`."""
    edge = 3
    for fd in [*sorted(kept), 1 << 20]:
        os.closerange(edge, fd)
        edge = fd + 1
