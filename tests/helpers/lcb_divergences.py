"""Programs on which LiveCodeBench's grader and the verifier differ on purpose, and the tables of them in the docs.

`python tests/helpers/lcb_divergences.py` prints the tables that docs/verifier-divergences.md shows.
"""

from __future__ import annotations

from typing import NamedTuple

from lcb_cases import METHOD, READ, SUM, TOTAL, Task


class Divergence(NamedTuple):
    """What a program does, the task, the program, and what the grader and the verifier say of it."""

    idiom: str
    task: Task
    program: str
    lcb: str
    here: str


LENGTH = Task((("abc\n", "3\n"), ("x\n", "1\n")))
ONCE = Task(SUM.tests[:1])
UNFINISHED = Task((("2\n3 4", "7"), ("1\n1", "1")))
WINDOWS = Task((("ab\r\ncd\r\n", "4\n"), ("x\r\ny\r\n", "2\n")))
SILENT = Task((("1\n", ""), ("2\n", "\n")))
SMALL = Task(SUM.tests, memory_mb=256)

MAIN = "def main():\n    input()\n    print(sum(map(int, input().split())))\n"
ANSWER = "print(sum(a))\n"
SPLIT = "n = int(d[0])\nprint(sum(map(int, d[1:])))"
KEEPER = METHOD.replace(":\n", ":\n    seen = []\n", 1) + "self.seen += nums\n        return sum(self.seen) + k"

READING = [
    Divergence(
        "`sys.stdin.buffer.read()`", SUM, "import sys\nd = sys.stdin.buffer.read().split()\n" + SPLIT, "RE", "AC"
    ),
    Divergence(
        "`sys.stdin.buffer.readline()`",
        SUM,
        "import sys\ninput = sys.stdin.buffer.readline\n" + READ + ANSWER,
        "RE",
        "AC",
    ),
    Divergence("`open(0).read()`", SUM, "d = open(0).read().split()\n" + SPLIT, "RE", "AC"),
    Divergence("`open('/dev/stdin').read()`", SUM, "d = open('/dev/stdin').read().split()\n" + SPLIT, "RE", "AC"),
    Divergence("`os.read(0, ...)`", SUM, "import os\nd = os.read(0, 10**6).split()\n" + SPLIT, "RE", "AC"),
    Divergence(
        "`io.BytesIO(os.read(0, os.fstat(0).st_size)).readline`",
        SUM,
        "import io, os\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\n" + READ + ANSWER,
        "RE",
        "AC",
    ),
    Divergence(
        "`from sys import stdin`, then `for line in stdin`",
        SUM,
        "from sys import stdin\nfor line in stdin: pass\nprint(sum(map(int, line.split())))",
        "RE",
        "AC",
    ),
    Divergence(
        "`from sys import stdin`, then `stdin.readline()[:-1]`",
        LENGTH,
        "from sys import stdin\nprint(len(stdin.readline()[:-1]))",
        "WA",
        "AC",
    ),
    Divergence(
        "`from sys import stdin`, then `stdin.readline()` up to an end without a newline",
        UNFINISHED,
        "from sys import stdin\nd = []\nwhile line := stdin.readline(): d += line.split()\n" + SPLIT,
        "RE",
        "AC",
    ),
    Divergence(
        "`from sys import stdin`, then both `stdin.readline()` and `input()`",
        SUM,
        "from sys import stdin\nn = int(stdin.readline())\nprint(sum(map(int, input().split())))",
        "WA",
        "AC",
    ),
    Divergence("lines that end in `\\r\\n`", WINDOWS, "print(len(input()) + len(input()))", "WA", "AC"),
]
WRITING = [
    Divergence(
        "`from sys import stdout`, then `stdout.write`",
        SUM,
        READ + "from sys import stdout\nstdout.write(str(sum(a)))",
        "WA",
        "AC",
    ),
    Divergence("`stdout.write` without an import", SUM, READ + "stdout.write(str(sum(a)))", "WA", "AC"),
    Divergence(
        "`sys.stdout.buffer.write`", SUM, READ + "import sys\nsys.stdout.buffer.write(b'%d' % sum(a))", "RE", "AC"
    ),
    Divergence(
        "`print(..., file=sys.__stdout__)`", SUM, READ + "import sys\nprint(sum(a), file=sys.__stdout__)", "WA", "AC"
    ),
    Divergence("`os.write(1, ...)`", SUM, READ + "import os\nos.write(1, b'%d' % sum(a))", "WA", "AC"),
]
STRUCTURE = [
    Divergence(
        "main guard that is not the last statement",
        SUM,
        MAIN + "if __name__ == '__main__':\n    main()\ndone = True",
        "WA",
        "AC",
    ),
    Divergence("main guard the other way round", SUM, MAIN + "if '__main__' == __name__:\n    main()", "WA", "AC"),
    Divergence(
        "`global` to read a top-level variable",
        SUM,
        READ + "def f():\n    global a\n    print(sum(a))\nf()",
        "RE",
        "AC",
    ),
    Divergence(
        "`global` to change a top-level variable",
        SUM,
        READ + "s = 0\ndef f(x):\n    global s\n    s += x\nfor x in a: f(x)\nprint(s)",
        "RE",
        "AC",
    ),
    Divergence(
        "a built-in name used, then assigned: `sum = sum(a)`", SUM, READ + "sum = sum(a)\nprint(sum)", "RE", "AC"
    ),
    Divergence("`exec` that sets a top-level variable", SUM, READ + "exec('s = sum(a)')\nprint(s)", "RE", "AC"),
    Divergence(
        "an import below the use of the name it hides",
        SUM,
        READ + "s = pow(sum(a), 1, 10**9)\nfrom math import pow\nprint(s if s < 9 else s - 10**9)",
        "RE",
        "AC",
    ),
    Divergence(
        "`from math import *` inside `try`",
        SUM,
        "try:\n    from math import *\nexcept ImportError: pass\n" + READ + "print(floor(sum(a)))",
        "RE",
        "AC",
    ),
    Divergence(
        "`from __future__ import annotations`", SUM, "from __future__ import annotations\n" + READ + ANSWER, "RE", "AC"
    ),
    Divergence(
        "`class Solution` in a program that reads and prints",
        SUM,
        "class Solution:\n    def f(self, a): return sum(a)\n" + READ + "print(Solution().f(a))",
        "RE",
        "AC",
    ),
    Divergence(
        "the words `class Solution` in a comment beside a bare function",
        TOTAL,
        "# no class Solution\ndef total(nums, k): return sum(nums) + k",
        "RE",
        "AC",
    ),
    Divergence(
        "`Solution` made without the words `class Solution`",
        TOTAL,
        METHOD.replace("Solution", "Answer") + "return sum(nums) + k\nSolution = Answer",
        "RE",
        "AC",
    ),
    Divergence("imports only, nothing expected", SILENT, "import sys", "RE", "AC"),
    Divergence("a byte-order mark at the start", SUM, "\ufeff" + READ + ANSWER, "RE", "AC"),
    Divergence("`return` outside a function", SUM, READ + ANSWER + "return", "AC", "CE"),
]
PROCESS = [
    Divergence("`quit()`", SUM, READ + ANSWER + "quit()", "RE", "AC"),
    Divergence(
        "`os._exit(0)` after a flush", SUM, READ + "import os\nprint(sum(a), flush=True)\nos._exit(0)", "lost", "AC"
    ),
    Divergence("`atexit`", SUM, READ + "import atexit\natexit.register(print, sum(a))", "WA", "AC"),
    Divergence(
        "a thread prints the answer, unjoined",
        SUM,
        READ + "import threading\nthreading.Timer(0.2, print, [sum(a)]).start()",
        "WA",
        "AC",
    ),
    Divergence(
        "`os.environ[...] = ...`", SUM, READ + "import os\nos.environ['OMP_NUM_THREADS'] = '1'\n" + ANSWER, "RE", "AC"
    ),
    Divergence(
        "`resource.setrlimit` for a deeper stack",
        SUM,
        READ + "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (2**26, -1))\n" + ANSWER,
        "RE",
        "AC",
    ),
    Divergence(
        "a module changed in one test and read in the next",
        SUM,
        READ + "assert not hasattr(math, 'memo')\nmath.memo = a\n" + ANSWER,
        "RE",
        "AC",
    ),
    Divergence("`Solution` that keeps values from call to call", TOTAL, KEEPER, "WA", "AC"),
    Divergence(
        "a function that keeps values in a default argument",
        TOTAL,
        "def total(nums, k, seen=[]):\n    seen += nums\n    return sum(seen) + k",
        "WA",
        "AC",
    ),
]
LIMITS = [
    Divergence(
        "sleeps longer than the limit", ONCE, "import time\n" + READ + "time.sleep(2.5)\n" + ANSWER, "TLE", "AC"
    ),
    Divergence(
        "takes more memory than the problem allows", SMALL, "x = bytearray(300 << 20)\n" + READ + ANSWER, "AC", "MLE"
    ),
]
PACKAGES = [
    Divergence("imports an installed package other than numpy", SUM, "import scipy\n" + READ + ANSWER, "AC", "RE"),
]
DIVERGENCES = {
    "Reading": READING,
    "Writing": WRITING,
    "Programs, not bodies of a function": STRUCTURE,
    "A process per test": PROCESS,
    "Limits": LIMITS,
    "Packages": PACKAGES,
}


def tables() -> str:
    """The divergences as Markdown, one section with a table per group."""
    parts = []
    for title, group in DIVERGENCES.items():
        rows = [f"| {case.idiom} | {case.lcb} | {case.here} |" for case in group]
        parts.append("\n".join([f"## {title}", "| a program with | LiveCodeBench | here |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(tables(), end="")
