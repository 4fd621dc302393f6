"""Seccomp filters: which system calls a zygote and a test process may make.

Two filters are stacked. The zygote installs `zygote_filter` once: calls that neither it nor any program needs. Each
test process adds `test_filter`: no new process, no exec, and no signal, limit or mode change for anything but itself.
Threads work.

A filter is a list of classic BPF instructions (opcode, jump if true, jump if false, constant).
Standard library only.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable

Instruction = tuple[int, int, int, int]
STEP = "=HBBI"

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_FIRST_UNKNOWN = 468  # a call with this number or a higher one is newer than the tables
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_CLONE_THREAD = 0x10000
_AF_UNIX, _SOCK_STREAM, _SOCKET_TYPE = 1, 1, 0xF
_RLIMIT_CPU, _SIGKILL = 0, 9
_OWN_ID = 0xFFFFFFFF  # stands for the process's own id, which is known only after the fork
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _FIOSETOWN, _SIOCSPGRP = 8, 10, 15, 0x8901, 0x8902

# Numbers on x86-64 and on aarch64; -1 where the architecture has no such call.
_NEVER_NEEDED = """ socket 41 198, connect 42 203, accept 43 202, accept4 288 242, bind 49 200,
listen 50 201, ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, kcmp 312 272,
pidfd_getfd 438 438, process_madvise 440 440, process_mrelease 448 448, mount 165 40, umount2 166
39, pivot_root 155 41, chroot 161 51, setns 308 268, unshare 272 97, open_tree 428 428, move_mount
429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442,
bpf 321 280, perf_event_open 298 241, keyctl 250 219, add_key 248 217, request_key 249 218,
userfaultfd 323 282, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427,
io_setup 206 0, personality 135 92, reboot 169 142, kexec_load 246 104, kexec_file_load 320 294,
init_module 175 105, finit_module 313 273, delete_module 176 106, swapon 167 224, swapoff 168 225,
acct 163 89, quotactl 179 60, quotactl_fd 443 443, settimeofday 164 170, clock_settime 227 112,
adjtimex 159 171, clock_adjtime 305 266, sethostname 170 161, setdomainname 171 162, iopl 172 -1,
ioperm 173 -1, modify_ldt 154 -1, syslog 103 116, vhangup 153 58, shmget 29 194, shmat 30 196,
shmctl 31 195, semget 64 190, semop 65 193, semctl 66 191, semtimedop 220 192, msgget 68 186, msgsnd
69 189, msgrcv 70 188, msgctl 71 187, mq_open 240 180, mq_unlink 241 181, memfd_create 319 279,
memfd_secret 447 447, fanotify_init 300 262, inotify_init 253 -1, inotify_init1 294 26,
name_to_handle_at 303 264, open_by_handle_at 304 265, migrate_pages 256 238, move_pages 279 239,
lookup_dcookie 212 18, mknod 133 -1, mknodat 259 33, truncate 76 45, chown 92 -1, lchown 94 -1,
fchown 93 55, fchownat 260 54, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, removexattr 197 14,
lremovexattr 198 15, fremovexattr 199 16, setxattrat 463 463, removexattrat 466 466
"""
_NOT_IN_A_TEST = """ fork 57 -1, vfork 58 -1, execve 59 221, execveat 322 281, tkill 200 130,
rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, pidfd_open 434 434, pidfd_send_signal 424 424,
setuid 105 146, setgid 106 144, setreuid 113 145, setregid 114 143, setgroups 116 159, setresuid 117
147, setresgid 119 149, setfsuid 122 151, setfsgid 123 152, capset 126 91, setpriority 141 140,
sched_setparam 142 118, sched_setscheduler 144 119, sched_setaffinity 203 122, sched_setattr 314
274, ioprio_set 251 30, chmod 90 -1, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, utime 132 -1,
utimes 235 -1, futimesat 261 -1, utimensat 280 88, setpgid 109 154, setsid 112 157
"""
_SOCKETPAIR, _CLONE, _CLONE3 = (53, 199), (56, 220), 435
_KILL, _TGKILL = (62, 129), (234, 131)
_SETRLIMIT, _PRLIMIT = (160, 164), (302, 261)
_PRCTL, _FCNTL, _IOCTL = (157, 167), (72, 25), (16, 29)


def _architecture() -> tuple[int, int]:
    """The kernel's name for this instruction set, and its column in the tables. Raises OSError."""
    try:
        return _ARCHITECTURES[platform.machine()]
    except KeyError:
        raise OSError(errno.ENOSYS, f"no system call table for {platform.machine()}") from None


def _refuse(code: int = errno.EPERM) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | code)


_PERMIT: Instruction = (_RETURN, 0, 0, _ALLOW)


def _prologue(audit: int) -> list[Instruction]:
    """Kill on a foreign instruction set; load the call's number; unknown calls do not exist."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_AT_LEAST, 0, 1, _FIRST_UNKNOWN),
        _refuse(errno.ENOSYS),
    ]


def _deny(table: str, column: int) -> list[Instruction]:
    numbers = [int(entry.split()[1 + column]) for entry in table.split(",")]
    pairs = [((_JUMP_EQUAL, 0, 1, number), _refuse()) for number in numbers if number >= 0]
    return [step for pair in pairs for step in pair]


def _by_argument(number: int, index: int, values: Iterable[int], *, allow: bool) -> list[Instruction]:
    """Decide one call by argument `index`: allowed for `values` only, or for all but `values`."""
    listed = list(values)
    body: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS + 8 * index)]
    body += [(_JUMP_EQUAL, len(listed) - at, 0, value) for at, value in enumerate(listed)]
    body += [_refuse(), _PERMIT] if allow else [_PERMIT, _refuse()]
    return [(_JUMP_EQUAL, 0, len(body), number), *body]


def _stream_pairs(number: int) -> list[Instruction]:
    """A pair of connected streams, which asyncio needs and nobody else can reach; a datagram could name a receiver."""
    return [
        (_JUMP_EQUAL, 0, 7, number),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_JUMP_EQUAL, 0, 3, _AF_UNIX),
        (_LOAD, 0, 0, _ARGUMENTS + 8),
        (_AND, 0, 0, _SOCKET_TYPE),
        (_JUMP_EQUAL, 1, 0, _SOCK_STREAM),
        _refuse(),
        _PERMIT,
    ]


def _own_signals(number: int, signal_at: int) -> list[Instruction]:
    """Signals to itself only, and not SIGKILL: a process killed so looks like one that the kernel had no memory for."""
    return [
        (_JUMP_EQUAL, 0, 7, number),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_JUMP_EQUAL, 1, 0, _OWN_ID),
        _refuse(),
        (_LOAD, 0, 0, _ARGUMENTS + 8 * signal_at),
        (_JUMP_EQUAL, 0, 1, _SIGKILL),
        _refuse(),
        _PERMIT,
    ]


def _own_limits(number: int) -> list[Instruction]:
    """Limits of itself only, and CPU time only to read: beyond a lowered limit the kernel sends SIGKILL."""
    return [
        (_JUMP_EQUAL, 0, 10, number),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_JUMP_EQUAL, 2, 0, 0),
        (_JUMP_EQUAL, 1, 0, _OWN_ID),
        _refuse(),
        (_LOAD, 0, 0, _ARGUMENTS + 8),
        (_JUMP_EQUAL, 0, 3, _RLIMIT_CPU),
        (_LOAD, 0, 0, _ARGUMENTS + 16),
        (_JUMP_EQUAL, 1, 0, 0),
        _refuse(),
        _PERMIT,
    ]


def pack(program: list[Instruction]) -> bytes:
    """The kernel's form of a filter."""
    return b"".join(struct.pack(STEP, *step) for step in program)


def zygote_filter() -> bytes:
    """No sockets, tracing, mounts, keys, bpf, System V objects and the like. Raises OSError."""
    audit, column = _architecture()
    program = _prologue(audit) + _deny(_NEVER_NEEDED, column)
    program += _stream_pairs(_SOCKETPAIR[column])
    return pack([*program, _PERMIT])


def test_filter() -> tuple[bytes, list[int]]:
    """A test process's filter, and where in it (byte offsets) the process has to write its own id. Raises OSError."""
    audit, column = _architecture()
    program = _prologue(audit) + _deny(_NOT_IN_A_TEST, column)
    # glibc falls back from clone3 to clone, whose flags a filter can see
    program += [(_JUMP_EQUAL, 0, 1, _CLONE3), _refuse(errno.ENOSYS)]
    program += [(_JUMP_EQUAL, 0, 4, _CLONE[column]), (_LOAD, 0, 0, _ARGUMENTS)]
    program += [(_JUMP_BITS, 0, 1, _CLONE_THREAD), _PERMIT, _refuse()]
    guarded = [_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE]
    program += _by_argument(_PRCTL[column], 0, guarded, allow=False)
    program += _by_argument(_FCNTL[column], 1, [_F_SETOWN, _F_SETSIG, _F_SETOWN_EX], allow=False)
    program += _by_argument(_IOCTL[column], 1, [_FIOSETOWN, _SIOCSPGRP], allow=False)
    program += _own_signals(_KILL[column], 1) + _own_signals(_TGKILL[column], 2)
    program += _by_argument(_SETRLIMIT[column], 0, [_RLIMIT_CPU], allow=False) + _own_limits(_PRLIMIT[column])
    places = [at * struct.calcsize(STEP) + 4 for at, step in enumerate(program) if step[3] == _OWN_ID]
    return pack([*program, _PERMIT]), places
