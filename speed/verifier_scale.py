"""What a long life does to the verifier: many tests in one process, and very large ones.

    python speed/verifier_scale.py [--quick] [--tests N] [--workers N] [--backend NAME] [--json FILE]

Batches of right, wrong, failing, looping, littering and chattering programs in all three modes are judged until N tests
(100,000) have been. After each batch the memory, descriptors and processes of this process and of its workers are read,
and the CPU time that a test cost. Then come one test with an input of 50 MB and one with an expected output of 20 MB.
Linux only. Exits with 1 if a line says FAIL. More in speed/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from machine import CORES, cpu_s, facts, print_facts
from tabulate import tabulate  # type: ignore[import-untyped]

from cppo_lib.data.problem import Problem, Test
from cppo_lib.verifier import Verifier
from cppo_lib.verifier.pool import BACKENDS

MB = 10**6
MIB = 1 << 20
FLAT_MIB = 20.0
"""How much memory may grow after the first tenth."""
COST_RATIO = 1.3
"""How much more CPU time a test of the last tenth may cost than one of the first tenth."""
PEAK_RATIO = 10.0
"""How much memory a large test may take for a while here, in multiples of its size."""
SETTLE_S = 5.0
LARGE = {"input": 50, "expected output": 20}
"""Sizes of the large tests in MB."""


# Long life -----------------------------------------------------------------------------------
_LINES = tuple(Test(f"{n} {n}\n", f"{2 * n}\n") for n in range(20))
_CALLS = tuple(Test(f"[{n}, {n}]", str(2 * n)) for n in range(20))
_CHECK = "def check(candidate):\n    for n in range(20):\n        assert candidate(n, n) == 2 * n\n"
STDIO = Problem(id="stdio", source="benchmark", statement="sum", tests=_LINES, cpu_limit_s=0.3)
CALL = Problem(id="call", source="benchmark", statement="sum", tests=_CALLS, mode="call", fn_name="f")
ASSERT = Problem(
    id="assert", source="benchmark", statement="sum", tests=(Test(_CHECK, ""),), mode="assert", fn_name="f"
)
SUM = "print(sum(map(int, input().split())))"
FUNCTION = "def f(a, b):\n    return a + b"
PROGRAMS = [
    *[(STDIO, SUM, "AC")] * 8,
    *[(CALL, FUNCTION, "AC")] * 4,
    *[(ASSERT, FUNCTION, "AC")] * 4,
    (STDIO, "print(0)", "WA"),
    (STDIO, "a, b = map(int, input().split())\nprint(a + b if a < 10 else 1 // 0)", "RE"),
    (STDIO, "print('does not compile'", "CE"),
    (STDIO, f"for n in range(20): open(str(n), 'w').write('x' * 10000)\n{SUM}", "AC"),
    (STDIO, "print('x' * 10**6)", "OLE"),
    (STDIO, f"import threading\nthreading.Thread(target=lambda: {SUM}).start()", "AC"),
    (STDIO, "x = bytearray(2**31)", "MLE"),
    (STDIO, "import os\nos.kill(os.getpid(), 11)", "RE"),
    (CALL, "def f(a, b):\n    return [a] * b", "WA"),
    (ASSERT, "def f(a, b):\n    raise ValueError", "RE"),
]
"""With the verdict that each has to get. A batch is copies of these, made different by a comment, and `ENDLESS`."""
ENDLESS = (STDIO, "while True: pass", "TLE")
COPIES = 4


@dataclass(frozen=True)
class Check:
    """One line of the verdict."""

    what: str
    found: str
    allowed: str
    passes: bool


@dataclass(frozen=True)
class Sample:
    """The state after a batch.

    `tests` counts from the start, `wrong` the wrong verdicts of the batch; memory is in MiB; processes are those below
    this one; CPU and wall milliseconds are per test of the batch. The descriptors of the workers are for root's eyes
    only, and 0 for everybody else.
    """

    tests: int
    wrong: int
    parent_mib: float
    workers_mib: float
    parent_fds: int
    workers_fds: int
    processes: int
    zombies: int
    cpu_ms: float
    wall_ms: float


def _workers_settled(expected: int) -> list[psutil.Process]:
    """The processes below this one, as soon as there are only as many as expected, or after some seconds."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        below = psutil.Process().children(recursive=True)
        if len(below) <= expected or time.monotonic() > deadline:
            return below
        time.sleep(0.01)


def _sample(tests: int, wrong: int, expected: int, cpu_ms: float, wall_ms: float) -> Sample:
    below, me = _workers_settled(expected), psutil.Process()
    return Sample(
        tests=tests,
        wrong=wrong,
        parent_mib=me.memory_info().rss / MIB,
        workers_mib=sum(process.memory_info().rss for process in below) / MIB,
        parent_fds=me.num_fds(),
        workers_fds=sum(process.num_fds() for process in below) if os.geteuid() == 0 else 0,
        processes=len(below),
        zombies=sum(process.status() == psutil.STATUS_ZOMBIE for process in below),
        cpu_ms=cpu_ms,
        wall_ms=wall_ms,
    )


def long_life(verifier: Verifier, number: int, copies: int) -> Iterator[Sample]:
    """Judge `number` tests or a few more; a sample after each batch."""
    done, batch, expected = 0, 0, len(psutil.Process().children(recursive=True))
    while done < number:
        programs = [*PROGRAMS * copies, ENDLESS]
        pairs = [(problem, f"{text}\n# {batch} {index}") for index, (problem, text, _) in enumerate(programs)]
        cpu, wall = cpu_s(), time.perf_counter()
        results = verifier.verify_many(pairs)
        cpu, wall = cpu_s() - cpu, time.perf_counter() - wall
        tests = sum(len(result.tests) for result in results)
        wrong = sum(result.verdict != program[2] for result, program in zip(results, programs, strict=True))
        done, batch = done + tests, batch + 1
        yield _sample(done, wrong, expected, 1000 * cpu / tests, 1000 * wall / tests)


def check_samples(samples: list[Sample]) -> list[Check]:
    """What a long life did to memory, descriptors, processes and cost."""
    tenth = math.ceil(len(samples) / 10)
    first, warm, last = samples[:tenth], samples[tenth - 1 :], samples[-1]
    cost = sum(s.cpu_ms for s in samples[-tenth:]) / sum(s.cpu_ms for s in first)
    here = max(s.parent_mib for s in warm) - warm[0].parent_mib
    there = max(s.workers_mib for s in warm) - warm[0].workers_mib
    fds = last.parent_fds - samples[0].parent_fds, last.workers_fds - samples[0].workers_fds
    zombies, more = max(s.zombies for s in samples), last.processes - samples[0].processes
    wrong = sum(s.wrong for s in samples)
    return [
        Check("wrong verdicts", str(wrong), "0", wrong == 0),
        Check("memory of this process grew by", f"{here:.1f} MiB", f"{FLAT_MIB:g} MiB", here <= FLAT_MIB),
        Check("memory of the workers grew by", f"{there:.1f} MiB", f"{FLAT_MIB:g} MiB", there <= FLAT_MIB),
        Check("descriptors more, here and in the workers", f"{fds[0]} and {fds[1]}", "0 and 0", max(fds) <= 0),
        Check("zombies at any time", str(zombies), "0", zombies == 0),
        Check("processes more", str(more), "0", more <= 0),
        Check("CPU time of a test, last tenth to first", f"{cost:.2f}", f"{COST_RATIO:g}", cost <= COST_RATIO),
    ]


# Large tests ---------------------------------------------------------------------------------
def _large(what: str, megabytes: int) -> tuple[Problem, str]:
    """A test with an input or expected output of this size, and a program that passes it."""
    line = "0123456789" * 10 + "\n"
    text = line * (megabytes * MB // len(line))
    if what == "input":
        test, program = Test(text, f"{len(text)}\n"), "import sys\nprint(len(sys.stdin.read()))"
    else:
        test, program = Test(f"{len(text) // len(line)}\n", text), "print(('0123456789' * 10 + '\\n') * int(input()))"
    return Problem(id=what, source="benchmark", statement=what, tests=(test,)), program


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def check_large(verifier: Verifier, what: str, megabytes: int) -> Check:
    """Judge one large test. Found: verdict, seconds, and how much memory it took here on top of what was in use."""
    problem, program = _large(what, megabytes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use
    before, wall = _peak_mib(), time.perf_counter()
    (result,) = verifier.verify(problem, [program])
    wall, peak = time.perf_counter() - wall, _peak_mib() - before
    allowed = PEAK_RATIO * megabytes * MB / MIB
    found = f"{result.verdict} {result.reason}".strip() + f", {wall:.1f} s, {peak:.0f} MiB here"
    passes = result.verdict == "AC" and peak <= allowed
    return Check(f"{what} of {megabytes} MB", found, f"AC, {allowed:.0f} MiB here", passes)


# Reporting -----------------------------------------------------------------------------------
def show_samples(samples: list[Sample]) -> str:
    """The first sample and one after each tenth; the costs are means since the line before."""
    ends = sorted({1, *(math.ceil(len(samples) * tenth / 10) for tenth in range(1, 11))})
    lines = []
    for start, end in zip([0, *ends], ends, strict=False):
        part, s = samples[start:end], samples[end - 1]
        cpu, wall = (sum(getattr(sample, name) for sample in part) / len(part) for name in ("cpu_ms", "wall_ms"))
        fds = f"{s.parent_fds}", f"{s.workers_fds}"
        lines.append([s.tests, f"{s.parent_mib:.1f}", f"{s.workers_mib:.1f}", *fds, s.processes, s.zombies])
        lines[-1] += [f"{cpu:.2f}", f"{wall:.2f}"]
    head = ["tests", "MiB here", "MiB workers", "fds here", "fds workers", "processes", "zombies", "CPU ms", "wall ms"]
    return tabulate(lines, head, tablefmt="github", disable_numparse=True)


def main(arguments: list[str]) -> int:
    """Run all and print what came out; 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=CORES)
    parser.add_argument("--backend", choices=BACKENDS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write samples and checks as JSON")
    parser.add_argument("--quick", action="store_true", help="two batches and small tests, to see that it runs")
    chosen = parser.parse_args(arguments)
    where = facts()
    print_facts(where)
    with Verifier(chosen.workers, backend=chosen.backend) as verifier:
        samples = list(long_life(verifier, *((400, 1) if chosen.quick else (chosen.tests, COPIES))))
        sizes = {what: 1 if chosen.quick else megabytes for what, megabytes in LARGE.items()}
        checks = check_samples(samples) + [check_large(verifier, *size) for size in sizes.items()]
    print(show_samples(samples), end="\n\n")
    lines = [[check.what, check.found, check.allowed, "PASS" if check.passes else "FAIL"] for check in checks]
    print(tabulate(lines, ["check", "found", "allowed", ""], tablefmt="github", disable_numparse=True))
    if chosen.json:
        record = {"machine": where, "samples": [asdict(s) for s in samples], "checks": [asdict(c) for c in checks]}
        chosen.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0 if all(check.passes for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
