"""Kernel isolation for processes that run model-written code: limits, identity, Landlock, seccomp.

Everything is done through `ctypes` with no dependency, needs no privilege, works as root too, and
cannot be undone by the process it is done to. The zygote imports this file without the rest of the
package: standard library only, and failures are `OSError`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Iterable

from cppo_lib.verifier.child import syscalls

MIB = 1 << 20
FILE_LIMIT = 16 * MIB
"""Largest file a program can write, in bytes; its standard output is one, and may be larger where it has to be."""
THREADS = 32
OPEN_FILES = 64

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_SIGKILL = 9


def _prctl(option: int, first: int = 0, second: int = 0) -> None:
    if not hasattr(_libc, "prctl"):
        raise OSError(errno.ENOSYS, "this system has no prctl")
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    if _libc.prctl(option, *arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


# Seccomp -------------------------------------------------------------------------------------
def _install(program: bytes) -> None:
    code = ctypes.create_string_buffer(program)
    steps = len(program) // struct.calcsize(syscalls.STEP)
    description = struct.pack("@HxxxxxxP", steps, ctypes.addressof(code))
    holder = ctypes.create_string_buffer(description)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(holder))


def harden_self() -> None:
    """Make this process unreadable through /proc and give up any later gain of privilege."""
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


_ON_DEATH = [ctypes.c_ulong(value) for value in (_SIGKILL, 0, 0, 0)]


def die_with(parent: int) -> None:
    """Tie the life of this process to its parent's (on Linux; elsewhere it notices a hang-up)."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, *_ON_DEATH)
    if os.getppid() != parent:
        os._exit(1)


def stay_on_this_core() -> None:
    """Keep this process, and those it will fork, on the core it is on now.

    A process that forks one test after the other and its tests take turns; on two cores each turn is a wake-up of the
    other core, which costs half as much again as the test (see speed/verifier.py).
    """
    if hasattr(_libc, "sched_getcpu") and (core := _libc.sched_getcpu()) >= 0:
        os.sched_setaffinity(0, {core})


class CallFilter:
    """System call filter of a zygote (in force from the start) and, completed by each, of its test processes.

    Everything that can be laid out beforehand is: a test process only writes its own id into the finished filter,
    because each page of memory that a forked process touches costs it a fault.

    Raises OSError where seccomp is missing or the machine's system calls are not known.
    """

    def __init__(self) -> None:
        _install(syscalls.zygote_filter())
        program, self._places = syscalls.test_filter()
        self._code = ctypes.create_string_buffer(program)
        steps = len(program) // struct.calcsize(syscalls.STEP)
        self._holder = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", steps, ctypes.addressof(self._code)))
        self._load = [ctypes.c_ulong(value) for value in (_SECCOMP_MODE_FILTER, ctypes.addressof(self._holder), 0, 0)]

    def confine(self) -> None:
        """Confine the calling process for good. Raises OSError."""
        for place in self._places:
            struct.pack_into("=I", self._code, place, os.getpid())
        if _libc.prctl(_PR_SET_SECCOMP, *self._load) != 0:
            raise OSError(ctypes.get_errno(), "seccomp")


# Landlock ------------------------------------------------------------------------------------
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_REG, _TRUNCATE = 1 << 5, 1 << 8, 1 << 14
_FILE_RIGHTS = _WRITE_FILE | _READ_FILE | _TRUNCATE
_KNOWN_RIGHTS = (0, 13, 14, 15, 15, 16)  # how many file system rights Landlock version n knows


def landlock_abi() -> int:
    """Version of Landlock the kernel offers, 0 if none."""
    if sys.platform != "linux":
        return 0
    return max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1)))


def open_ruleset(readable: Iterable[str], listable: Iterable[str], box: str) -> int:
    """Build a Landlock ruleset and return its descriptor.

    Args:
        readable: files and folders whose content may be read.
        listable: folders whose names may be listed.
        box: the one folder in which plain files may be made, written and removed.

    Raises OSError where Landlock is missing.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError(errno.ENOSYS, "the kernel offers no Landlock")
    rights = (1 << _KNOWN_RIGHTS[min(abi, 5)]) - 1
    no_tcp, no_outside_signals = (3 if abi >= 4 else 0), (3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = struct.pack("=QQQ", rights, no_tcp, no_outside_signals)[:size]
    ruleset: int = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint(0))
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    in_box = _FILE_RIGHTS | _READ_DIR | _REMOVE_FILE | _MAKE_REG
    for path in readable:
        _allow(ruleset, path, (_READ_FILE | _READ_DIR) & rights)
    for path in listable:
        _allow(ruleset, path, _READ_DIR)
    _allow(ruleset, os.devnull, _READ_FILE | _WRITE_FILE)
    _allow(ruleset, "/dev/urandom", _READ_FILE)
    _allow(ruleset, box, in_box & rights)
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, target)
        if _libc.syscall(_ADD_RULE, ruleset, 1, rule, ctypes.c_uint(0)) != 0:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule({path})")
    finally:
        os.close(target)


def enforce_ruleset(ruleset: int) -> None:
    """Confine this process to an `open_ruleset` descriptor. Raises OSError."""
    if _libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint(0)) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")


# Limits and identity -------------------------------------------------------------------------
def _limit(which: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; one that is already tighter stays, because raising it would fail."""
    ceiling = resource.getrlimit(which)[1]
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        hard = min(hard, ceiling)
    resource.setrlimit(which, (min(soft, hard), hard))


def set_limits(*, memory_mb: int, file_bytes: int, own_user: bool) -> None:
    """Limits of all processes of a program: MiB of address space, bytes of its largest file, and fixed ones.

    `own_user` says that it runs under a user id of its own, so that threads can be counted per user.
    """
    _limit(resource.RLIMIT_AS, memory_mb * MIB)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    if hasattr(resource, "RLIMIT_MEMLOCK"):
        _limit(resource.RLIMIT_MEMLOCK, 0)
    if own_user:
        _limit(resource.RLIMIT_NPROC, THREADS)


def limit_cpu(soft: int, hard: int) -> None:
    """Whole CPU seconds of the calling process: the back-stop of the watch from outside."""
    _limit(resource.RLIMIT_CPU, soft, hard)


def drop_to(uid: int) -> None:
    """Become user and group `uid` for good, without other groups. Raises OSError."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
