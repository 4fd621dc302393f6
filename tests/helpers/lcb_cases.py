"""Problems and programs on which LiveCodeBench's grader and the verifier must agree.

The programs read with `input()` or `sys.stdin`, write with `print` or `sys.stdout.write`, and otherwise do nothing that
the grader's stand-ins for the standard streams, or its wrapping of a program into a function, would change. What they
would change is in `lcb_divergences`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cppo_lib.data.problem import Problem, Test

CPU_S = 1.0
"""Limit of the verifier per test, in CPU seconds."""
WALL_S = 2
"""Limit of the grader per test: in wall-clock seconds, so that a busy machine needs some room."""


@dataclass(frozen=True)
class Task:
    """Tests in the grader's own form: texts, or for calls one JSON value per line and argument."""

    tests: tuple[tuple[str, str], ...]
    fn_name: str | None = None
    memory_mb: int = 1024

    def sample(self) -> dict[str, Any]:
        """What the grader reads."""
        inputs, outputs = ([test[side] for test in self.tests] for side in (0, 1))
        return {"inputs": inputs, "outputs": outputs} | ({"fn_name": self.fn_name} if self.fn_name else {})

    def problem(self) -> Problem:
        """What the verifier reads."""
        called = self.fn_name is not None
        return Problem(
            id="task",
            source="livecodebench",
            statement="A task.",
            tests=tuple(Test(_arguments(given) if called else given, expected) for given, expected in self.tests),
            mode="call" if called else "stdio",
            fn_name=self.fn_name,
            cpu_limit_s=CPU_S,
            memory_mb=self.memory_mb,
            comparator="call_lcb" if called else "lcb",
            prelude="lcb",
        )


def _arguments(lines: str) -> str:
    return json.dumps([json.loads(line) for line in lines.split("\n")])


SUM = Task((("2\n3 4\n", "7\n"), ("3\n1 1 1\n", "3\n"), ("1\n-5", "-5")))
MANY = Task(tuple((f"{n}\n{' '.join(map(str, range(n)))}\n", f"{n * (n - 1) // 2}\n") for n in range(1, 41)))
LINES = Task((("3\nab\ncd\nef\n", "BA\nDC\nFE\n"), ("1\nx\n", "X\n")))
MEAN = Task((("1 2\n", "1.5"), ("1 1 1 2", "1.25"), ("4 4", "4")))
POWER = Task((("2\n", "100"), ("6000", "1" + "0" * 6000)))
GRID = Task((("2 3\n", "...\n...\n\nend\n"), ("1 1\n", ".\n\nend")))
BLANKS = Task((("\n  a b \n\nc\n", "0 3 0 1\n"), ("\n\n\n\n", "0 0 0 0")))
WORD = Task((("3\n", "Yes\n"), ("4\n", "No\n")))
NOTHING = Task((("", ""), ("1\n", "\n")))

TOTAL = Task((("[1, 2]\n3", "6"), ("[]\n0", "0"), ("[-1]\n1", "0")), "total")
PAIR = Task((("[2, 7, 11]\n9", "[0, 1]"), ("[3, 3]\n6", "[0, 1]")), "twoSum")
PAIRS = Task((("[3, 1, 2]", "[[1, 0], [2, 1], [3, 2]]"), ("[]", "[]")), "ranked")
HALF = Task((("3", "1.5"), ("4", "2.0"), ("0", "0.0")), "half")
TENTHS = Task((("1\n2", "0.3"),), "tenths")
EVEN = Task((("4", "true"), ("3", "false")), "isEven")
GREET = Task((('"Zoë"', '"Hi, Zoë \\u2713"'), ('""', '"Hi,  \\u2713"')), "greet")
COUNTS = Task((('["a", "b", "a"]', '{"a": 2, "b": 1}'), ("[]", "{}")), "counts")
FIRST = Task((("[[1, 2], [3]]", "1"), ("[[]]", "null")), "first")
BIG = Task((("9000", "1" + "0" * 9000),), "power")

READ = "n = int(input())\na = list(map(int, input().split()))\n"
METHOD = "class Solution:\n    def total(self, nums, k):\n        "
TWO_SUM = (
    "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n        seen = {}\n"
    "        for i, x in enumerate(nums):\n            if target - x in seen:\n"
    "                return [seen[target - x], i]\n            seen[x] = i\n"
)

AGREED: dict[str, tuple[Task, str, str]] = {
    # Reading and writing
    "input": (SUM, READ + "print(sum(a))", "AC"),
    "sys.stdin.read": (SUM, "import sys\nprint(sum(map(int, sys.stdin.read().split()[1:])))", "AC"),
    "sys.stdin.readline": (
        SUM,
        "import sys\nsys.stdin.readline()\nprint(sum(map(int, sys.stdin.readline().split())))",
        "AC",
    ),
    "sys.stdin.readlines": (SUM, "import sys\nprint(sum(map(int, sys.stdin.readlines()[1].split())))", "AC"),
    "for line in sys.stdin": (SUM, "import sys\nfor line in sys.stdin: pass\nprint(sum(map(int, line.split())))", "AC"),
    "input is readline": (SUM, "import sys\ninput = sys.stdin.readline\n" + READ + "print(sum(a))", "AC"),
    "from sys import stdin": (SUM, "from sys import stdin\nprint(sum(map(int, stdin.read().split()[1:])))", "AC"),
    "stdin of the prelude": (SUM, "print(sum(map(int, stdin.read().split()[1:])))", "AC"),
    "sys.stdout.write": (SUM, READ + "import sys\nsys.stdout.write(str(sum(a)) + '\\n')", "AC"),
    "print to sys.stdout": (SUM, READ + "print(sum(a), file=sys.stdout, flush=True)", "AC"),
    "noise on stderr": (SUM, READ + "import sys\nprint('debug', file=sys.stderr)\nprint(sum(a))", "AC"),
    "no newline at the end": (SUM, READ + "print(sum(a), end='')", "AC"),
    "spaces and blank lines around": (SUM, READ + "print('\\n ', sum(a), ' \\n\\n')", "AC"),
    "decimal point": (SUM, READ + "print(float(sum(a)))", "AC"),
    "another notation": (SUM, READ + "print(f'{sum(a):+04d}')", "AC"),
    "a word too many": (SUM, READ + "print('Sum:', sum(a))", "WA"),
    "an extra line": (SUM, READ + "print(sum(a))\nprint()\nprint(0)", "WA"),
    "right on the first test only": (SUM, "print(7)", "WA"),
    "prints nothing": (SUM, READ, "WA"),
    "reads past the end": (SUM, READ + "input()\nprint(sum(a))", "RE"),
    "reads past the end, caught": (SUM, READ + "try: input()\nexcept EOFError: print(sum(a))", "AC"),
    "all 40 tests": (MANY, READ + "print(sum(a))", "AC"),
    "all but the last test": (MANY, READ + "print(sum(a) if n < 40 else 0)", "WA"),
    "lines": (LINES, "for _ in range(int(input())): print(input()[::-1].upper())", "AC"),
    "lines joined": (LINES, "print('\\n'.join(input()[::-1].upper() for _ in range(int(input()))), end=' ')", "AC"),
    "lines in one": (LINES, "print(*[input()[::-1].upper() for _ in range(int(input()))])", "WA"),
    "lines in small letters": (LINES, "for _ in range(int(input())): print(input()[::-1])", "WA"),
    "one line short": (LINES, "for _ in range(int(input()) - 1): print(input()[::-1].upper())", "WA"),
    "mean": (MEAN, "a = list(map(int, input().split()))\nprint(sum(a) / len(a))", "AC"),
    "mean, many places": (MEAN, "a = list(map(int, input().split()))\nprint('%.9f' % (sum(a) / len(a)))", "AC"),
    "mean, rounding noise": (MEAN, "a = list(map(int, input().split()))\nprint(sum(a) / len(a) + 1e-9)", "WA"),
    "mean, whole number": (MEAN, "a = list(map(int, input().split()))\nprint(sum(a) // len(a))", "WA"),
    "big integer": (POWER, "print(10 ** int(input()))", "AC"),
    "big integer, off by one": (POWER, "print(10 ** int(input()) + 1)", "WA"),
    "big integer as a float": (POWER, "print(10.0 ** int(input()))", "RE"),
    "integer of 60,000 digits": (POWER, "print(10 ** 60000)", "RE"),
    "blank line inside": (
        GRID,
        "r, c = map(int, input().split())\nfor _ in range(r): print('.' * c)\nprint()\nprint('end')",
        "AC",
    ),
    "blank line missing": (
        GRID,
        "r, c = map(int, input().split())\nfor _ in range(r): print('.' * c)\nprint('end')",
        "WA",
    ),
    "trailing spaces": (
        GRID,
        "r, c = map(int, input().split())\nfor _ in range(r): print('.' * c, '  ')\nprint()\nprint('end')",
        "AC",
    ),
    "blank lines and spaces in the input": (BLANKS, "print(*[len(input().strip()) for _ in range(4)])", "AC"),
    "spaces in the input kept": (BLANKS, "print(*[len(input()) for _ in range(4)])", "WA"),
    "case of letters": (WORD, "print('Yes' if int(input()) % 2 else 'No')", "AC"),
    "another case of letters": (WORD, "print('YES' if int(input()) % 2 else 'NO')", "WA"),
    "nothing expected": (NOTHING, "print()", "AC"),
    "something where nothing is expected": (NOTHING, "print(0)", "WA"),
    # Programs
    "functions and recursion": (SUM, READ + "def f(i): return a[i] + f(i + 1) if i < n else 0\nprint(f(0))", "AC"),
    "deep recursion": (SUM, READ + "def f(i): return i and f(i - 1)\nprint(sum(a) + f(30000))", "AC"),
    "endless recursion": (SUM, "def f(i): return f(i + 1)\nf(0)", "RE"),
    "class and dataclass": (
        SUM,
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n" + READ + "print(A(sum(a)).x)",
        "AC",
    ),
    "generator and closure": (SUM, READ + "def g():\n    yield from a\nprint(sum(g()))", "AC"),
    "match and walrus": (SUM, READ + "match (s := sum(a)):\n    case 7: print(7)\n    case _: print(s)", "AC"),
    "asyncio": (SUM, "import asyncio\n" + READ + "async def f(): return sum(a)\nprint(asyncio.run(f()))", "AC"),
    "main function": (SUM, "def main():\n    input()\n    print(sum(map(int, input().split())))\nmain()", "AC"),
    "main guard at the end": (
        SUM,
        'def main():\n    input()\n    print(sum(map(int, input().split())))\nif __name__ == "__main__":\n    main()',
        "AC",
    ),
    "joined thread": (
        SUM,
        "import threading\n" + READ + "t = threading.Thread(target=lambda: print(sum(a)))\nt.start()\nt.join()",
        "AC",
    ),
    "thread with a big stack": (
        SUM,
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\n"
        + READ
        + "def f(i): return i and f(i - 1)\nt = threading.Thread(target=lambda: print(sum(a) + f(40000)))\n"
        "t.start()\nt.join()",
        "AC",
    ),
    "exit": (SUM, READ + "print(sum(a))\nexit()", "AC"),
    "sys.exit(1)": (SUM, READ + "import sys\nprint(sum(a))\nsys.exit(1)\nprint('not reached')", "AC"),
    "exit before the answer": (SUM, READ + "exit()\nprint(sum(a))", "WA"),
    "names of the prelude": (
        SUM,
        READ + "print(reduce(add, deque(a)) + floor(0.5) + len(defaultdict(int)) + gcd(0, 0))",
        "AC",
    ),
    "modules of the prelude": (SUM, READ + "print(math.floor(sum(a)) + len(re.findall('x', string.digits)))", "AC"),
    "pow with three arguments": (SUM, READ + "print(sum(a) * pow(2, 4, 5))", "AC"),
    "a module hides its function": (SUM, READ + "print(sum(a) + bisect([], 1))", "RE"),
    "name that is not in the prelude": (SUM, READ + "print(sum(a) + Fraction(0))", "RE"),
    "module that is not in the prelude": (SUM, READ + "print(sum(a), os.sep)", "RE"),
    "numpy": (SUM, "import numpy as np\n" + READ + "print(np.array(a).sum())", "AC"),
    "missing package": (SUM, "import no_such_package\n" + READ + "print(sum(a))", "RE"),
    "raises after the answer": (SUM, READ + "print(sum(a))\n1 / 0", "RE"),
    "raises on the second test": (SUM, READ + "print(sum(a) if n < 3 else a[9])", "RE"),
    "failed assertion": (SUM, READ + "assert n < 3\nprint(sum(a))", "RE"),
    "unfinished": (SUM, READ + "print(sum(a)", "CE"),
    "indentation": (SUM, "n = input()\n  print(n)", "CE"),
    "Python 2": (SUM, "print 7", "CE"),
    "not code": (SUM, "The answer is the sum of all the numbers.", "CE"),
    "no code": (SUM, "", "CE"),
    "endless loop": (SUM, "while True: pass", "TLE"),
    "endless loop on the second test": (SUM, READ + "while n == 3: pass\nprint(sum(a))", "TLE"),
    "too slow": (SUM, READ + "x = 0\nfor i in range(10**10): x ^= i\nprint(sum(a))", "TLE"),
    # Calls
    "method": (TOTAL, METHOD + "return sum(nums) + k", "AC"),
    "method, wrong": (TOTAL, METHOD + "return sum(nums)", "WA"),
    "method, raises": (TOTAL, METHOD + "return nums[0] + nums[1] + k", "RE"),
    "method, returns nothing": (TOTAL, METHOD + "print(sum(nums) + k)", "WA"),
    "method, also prints": (TOTAL, METHOD + "print('debug')\n        return sum(nums) + k", "AC"),
    "method, endless loop": (TOTAL, METHOD + "while True: pass", "TLE"),
    "method, float for an integer": (TOTAL, METHOD + "return float(sum(nums) + k)", "AC"),
    "method, text for an integer": (TOTAL, METHOD + "return str(sum(nums) + k)", "WA"),
    "method, deep recursion": (
        TOTAL,
        METHOD + "def f(i): return i and f(i - 1)\n        return sum(nums) + k + f(20000)",
        "AC",
    ),
    "method, leaves": (TOTAL, METHOD + "exit()", "RE"),
    "static method": (TOTAL, "class Solution:\n    @staticmethod\n    def total(nums, k): return sum(nums) + k", "AC"),
    "inherited method": (
        TOTAL,
        "class A:\n    def total(self, nums, k): return sum(nums) + k\nclass Solution(A): pass",
        "AC",
    ),
    "bare function": (TOTAL, "def total(nums, k):\n    return sum(nums) + k", "AC"),
    "bare function under another name": (TOTAL, "def sum_up(nums, k):\n    return sum(nums) + k", "RE"),
    "method under another name": (TOTAL, "class Solution:\n    def sum_up(self, nums, k): return sum(nums) + k", "RE"),
    "argument missing": (TOTAL, "class Solution:\n    def total(self, nums): return sum(nums)", "RE"),
    "constructor with arguments": (
        TOTAL,
        "class Solution:\n    def __init__(self, x): pass\n    def total(self, nums, k): return 6",
        "RE",
    ),
    "call, unfinished": (TOTAL, METHOD + "return (sum(nums)", "CE"),
    "main guard that reads": (
        TOTAL,
        METHOD + "return sum(nums) + k\nif __name__ == '__main__':\n    print(Solution().total([], int(input())))",
        "AC",
    ),
    "module level that prints": (TOTAL, METHOD + "return sum(nums) + k\nprint(Solution().total([1], 2))", "AC"),
    "module level that reads": (TOTAL, METHOD + "return sum(nums) + k\nx = input()", "RE"),
    "changes its argument": (TOTAL, METHOD + "nums.append(k)\n        return sum(nums)", "AC"),
    "starter code completed": (PAIR, TWO_SUM, "AC"),
    "tuple for a list": (PAIR, TWO_SUM.replace("[seen[target - x], i]", "seen[target - x], i"), "AC"),
    "other order": (PAIR, TWO_SUM.replace("[seen[target - x], i]", "[i, seen[target - x]]"), "WA"),
    "starter code as it was": (
        PAIR,
        "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n",
        "CE",
    ),
    "lists in a list": (PAIRS, "def ranked(x): return [[v, i] for i, v in enumerate(sorted(x))]", "AC"),
    "tuples in a list": (PAIRS, "def ranked(x): return [(v, i) for i, v in enumerate(sorted(x))]", "WA"),
    "generator for a list": (PAIRS, "def ranked(x): return ([v, i] for i, v in enumerate(sorted(x)))", "WA"),
    "deque for a list": (PAIRS, "def ranked(x): return deque([v, i] for i, v in enumerate(sorted(x)))", "WA"),
    "numpy integer for an integer": (
        TOTAL,
        "import numpy as np\ndef total(nums, k): return np.int64(sum(nums) + k)",
        "AC",
    ),
    "numpy array for a list": (PAIR, "import numpy as np\ndef twoSum(nums, target): return np.array([0, 1])", "WA"),
    "float": (HALF, "def half(x): return x / 2", "AC"),
    "float, near": (TENTHS, "def tenths(x, y): return x / 10 + y / 10", "WA"),
    "float, exact": (TENTHS, "def tenths(x, y): return (x + y) / 10", "AC"),
    "numpy float for a float": (HALF, "import numpy as np\ndef half(x): return np.float64(x) / 2", "AC"),
    "boolean": (EVEN, "def isEven(n): return n % 2 == 0", "AC"),
    "integer for a boolean": (EVEN, "def isEven(n): return 1 - n % 2", "AC"),
    "numpy boolean for a boolean": (EVEN, "import numpy as np\ndef isEven(n): return np.int64(n) % 2 == 0", "AC"),
    "truth for a boolean": (EVEN, "def isEven(n): return [] if n % 2 else [n]", "WA"),
    "text": (GREET, "def greet(name): return f'Hi, {name} \\u2713'", "AC"),
    "text, near": (GREET, "def greet(name): return f'hi, {name} \\u2713'", "WA"),
    "dictionary": (COUNTS, "def counts(x): return {k: x.count(k) for k in x}", "AC"),
    "Counter for a dictionary": (COUNTS, "def counts(x): return Counter(x)", "AC"),
    "defaultdict for a dictionary": (
        COUNTS,
        "def counts(x):\n    d = defaultdict(int)\n    for k in x: d[k] += 1\n    return d",
        "AC",
    ),
    "pairs for a dictionary": (COUNTS, "def counts(x): return list(Counter(x).items())", "WA"),
    "None": (FIRST, "def first(x): return x[0][0] if x[0] else None", "AC"),
    "zero for None": (FIRST, "def first(x): return x[0][0] if x[0] else 0", "WA"),
    "returned integer of 9,001 digits": (BIG, "def power(n): return 10 ** n", "AC"),
    "returned integer of 9,001 digits, off by one": (BIG, "def power(n): return 10 ** n - 1", "WA"),
}
