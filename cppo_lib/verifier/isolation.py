"""Kernel isolation for processes that run model-written code: rlimits, uid drop, Landlock, seccomp (section L1-L6).

Everything here is done through `ctypes` with no dependency, works without privileges (and better as root), and is
irrevocable for the process that asks for it. The file is also imported by the zygote, which runs outside the package,
so it imports the standard library only and reports failure as `OSError`.

Two seccomp filters are stacked. The zygote installs the long one once (`forbid_privileged_calls`): calls that neither it
nor any program needs. Each test process adds the short one (`TestFilter`): no new process, no exec, no signal and no limit
for anyone but itself. Landlock rulesets are built once (`open_ruleset`) and only enforced per test, which is cheap.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterable

MIB = 1 << 20
FILE_LIMIT = 16 * MIB
"""Largest file a program can write, standard output included (bytes)."""
THREADS = 32
OPEN_FILES = 64

_libc = ctypes.CDLL(None, use_errno=True)
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_NEWEST_SYSCALL = 467
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SIGKILL = 9

# name: (x86-64 number, aarch64 number); -1 where the architecture has no such call.
_PRIVILEGED = {
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242), "bind": (49, 200),
    "listen": (50, 201), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "setns": (308, 268),
    "unshare": (272, 97), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "bpf": (321, 280), "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_setup": (206, 0), "personality": (135, 92), "reboot": (169, 142),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "syslog": (103, 116), "vhangup": (153, 58),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "fanotify_init": (300, 262), "inotify_init": (253, -1), "inotify_init1": (294, 26),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "lookup_dcookie": (212, 18), "mknod": (133, -1), "mknodat": (259, 33),
}  # fmt: skip
_PER_TEST = {
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145),
    "setregid": (114, 143), "setgroups": (116, 159), "setresuid": (117, 147), "setresgid": (119, 149),
    "setfsuid": (122, 151), "setfsgid": (123, 152), "capset": (126, 91), "setpriority": (141, 140),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "ioprio_set": (251, 30),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), 435
_KILL, _TGKILL, _PRLIMIT, _PRCTL = (62, 129), (234, 131), (302, 261), (157, 167)
_CLONE_THREAD = 0x10000

_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_STEP = "=HBBI"
Instruction = tuple[int, int, int, int]


def _architecture() -> tuple[int, int]:
    try:
        return _ARCHITECTURES[platform.machine()]
    except KeyError:
        raise OSError(errno.ENOSYS, f"no syscall table for {platform.machine()}") from None


def _refuse(code: int = errno.EPERM) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | code)


def _prologue(audit: int) -> list[Instruction]:
    """Kill on a foreign instruction set; load the syscall number; calls newer than the table do not exist."""
    return [
        (_LOAD, 0, 0, 4), (_JEQ, 1, 0, audit), (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, 0), (_JGE, 0, 1, _NEWEST_SYSCALL), _refuse(errno.ENOSYS),
    ]  # fmt: skip


def _deny(numbers: Iterable[int]) -> list[Instruction]:
    return [step for number in numbers if number >= 0 for step in ((_JEQ, 0, 1, number), _refuse())]


def _only_if_first_argument(number: int, allowed: Iterable[int]) -> list[Instruction]:
    """Allow the call only when its first argument is one of `allowed`; other calls fall through."""
    values = list(allowed)
    body: list[Instruction] = [(_LOAD, 0, 0, 16)]
    body += [(_JEQ, len(values) - index, 0, value) for index, value in enumerate(values)]
    body += [_refuse(), (_RETURN, 0, 0, _ALLOW)]
    return [(_JEQ, 0, len(body), number), *body]


def _pack(program: list[Instruction]) -> bytes:
    return b"".join(struct.pack(_STEP, *step) for step in program)


def _install(program: bytes) -> None:
    code = ctypes.create_string_buffer(program)
    steps = len(program) // struct.calcsize(_STEP)
    filter_ = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", steps, ctypes.addressof(code)))
    _prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(filter_))


def _prctl(option: int, first: int = 0, second: int = 0) -> None:
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    if _libc.prctl(option, *arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def harden_self() -> None:
    """Make this process unreadable through /proc and give up any later gain of privilege."""
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def forbid_privileged_calls() -> None:
    """Zygote filter: no sockets, tracing, mounts, keys, bpf, System V objects and the like, for it and its children.

    Raises OSError where seccomp or the architecture's syscall table is missing.
    """
    audit, column = _architecture()
    pairs = [(53, 199)[column]]  # socketpair: only AF_UNIX, which asyncio needs and which reaches nobody else
    program = _prologue(audit) + _deny(numbers[column] for numbers in _PRIVILEGED.values())
    program += [step for number in pairs for step in _only_if_first_argument(number, [1])]
    _install(_pack([*program, (_RETURN, 0, 0, _ALLOW)]))


class TestFilter:
    """Test-process filter: threads but no processes, no exec, and signals and limits for itself only.

    Made once by the zygote and completed with the process id by each test process. Raises OSError where the
    architecture's syscall table is missing.
    """

    def __init__(self) -> None:
        audit, column = _architecture()
        self.zygote = os.getpid()
        program = _prologue(audit) + _deny(numbers[column] for numbers in _PER_TEST.values())
        program += [(_JEQ, 0, 1, _CLONE3), _refuse(errno.ENOSYS)]  # glibc falls back to clone, whose flags show
        program += [(_JEQ, 0, 4, _CLONE[column]), (_LOAD, 0, 0, 16), (_JSET, 1, 0, _CLONE_THREAD), _refuse()]
        program += [(_RETURN, 0, 0, _ALLOW)]
        program += [(_JEQ, 0, 5, _PRCTL[column]), (_LOAD, 0, 0, 16)]
        program += [(_JEQ, 1, 0, _PR_SET_PDEATHSIG), (_JEQ, 0, 1, _PR_SET_DUMPABLE), _refuse()]
        program += [(_RETURN, 0, 0, _ALLOW)]
        self._fixed, self._column = _pack(program), column

    def confine(self) -> None:
        """Confine the calling child of the zygote, and let it die with the zygote. Raises OSError."""
        _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
        if os.getppid() != self.zygote:
            os._exit(1)
        me = os.getpid()
        program = []
        for numbers, allowed in ((_KILL, [me]), (_TGKILL, [me]), (_PRLIMIT, [0, me])):
            program += _only_if_first_argument(numbers[self._column], allowed)
        _install(self._fixed + _pack([*program, (_RETURN, 0, 0, _ALLOW)]))


# Landlock ------------------------------------------------------------------------------------------------------------
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = 1, 2, 4, 8, 32, 256, 1 << 14
_RIGHTS_BY_ABI = (0, 13, 14, 15, 15, 16)


def landlock_abi() -> int:
    """Version of Landlock the kernel offers, 0 if none."""
    return max(0, _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1)))


def open_ruleset(readable: Iterable[str], listable: Iterable[str], devices: Iterable[str], box: str) -> int:
    """Build a Landlock ruleset and return its descriptor.

    Args:
        readable: files and folders whose content may be read; `listable`: folders whose names alone may be listed.
        devices: device files that may be read and written.
        box: the one folder in which plain files may be created, written and removed.

    Raises OSError where Landlock is missing.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError(errno.ENOSYS, "the kernel offers no Landlock")
    rights = (1 << _RIGHTS_BY_ABI[min(abi, 5)]) - 1
    network, scope = (3 if abi >= 4 else 0), (3 if abi >= 6 else 0)
    attributes = struct.pack("=QQQ", rights, network, scope)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    in_box = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
    rules = [(path, _READ_FILE | _READ_DIR) for path in readable] + [(path, _READ_DIR) for path in listable]
    rules += [(path, _READ_FILE | _WRITE_FILE) for path in devices] + [(box, in_box)]
    for path, wanted in rules:
        _allow(ruleset, path, wanted & rights)
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
        rule = struct.pack("=Qi", rights, target)
        if _libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, ctypes.c_uint(0)) != 0:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule({path})")
    finally:
        os.close(target)


def enforce_ruleset(ruleset: int) -> None:
    """Confine this process to an `open_ruleset` descriptor. Raises OSError."""
    if _libc.syscall(_LANDLOCK_RESTRICT, ruleset, ctypes.c_uint(0)) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")


# Limits and identity -------------------------------------------------------------------------------------------------
def _limit(which: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; one that is already tighter stays (raising a hard limit would fail)."""
    ceiling = resource.getrlimit(which)[1]
    wanted = soft if hard is None else hard
    top = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
    resource.setrlimit(which, (min(soft, top), top))


def set_limits(*, cpu_s: int, memory_mb: int, own_user: bool) -> None:
    """Per-process limits of a test: whole CPU seconds (back-stop), MiB of address space, file size, descriptors.

    `own_user` says that the process runs under a user id of its own, so that threads can be counted per user.
    """
    _limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
    _limit(resource.RLIMIT_AS, memory_mb * MIB)
    _limit(resource.RLIMIT_FSIZE, FILE_LIMIT)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_MEMLOCK, 0)
    if own_user:
        _limit(resource.RLIMIT_NPROC, THREADS)


def drop_to(uid: int) -> None:
    """Become user and group `uid` for good, with no supplementary groups and no capabilities. Raises OSError."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
