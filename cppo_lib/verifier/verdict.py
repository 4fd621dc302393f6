"""The decision table: from what the kernel and the captured bytes say to a verdict. Pure functions,
first match wins.

| what is known | verdict |
|---|---|
| SIGKILL that was not ours (the system ran out of memory) | IE |
| it ended before the program started | CE (does not compile), or IE (could not be isolated) |
| killed for CPU or wall time, SIGXCPU, or more CPU than the limit even with status 0 | TLE |
| too many files or too much output | OLE |
| uncaught MemoryError, or OSError for want of memory | MLE |
| any other signal or non-zero status | RE |
| comparator | AC or WA |

A report's letters are explained in `harness`. A program can overwrite its own report, which changes
the wording of a
failure at most: AC needs status 0 and an answer that the comparator accepts.
"""

from __future__ import annotations

import json
import signal
from typing import Any, NamedTuple

from cppo_lib.data.problem import Problem, Test
from cppo_lib.verifier import compare
from cppo_lib.verifier.child.harness import SETUP_FAILED
from cppo_lib.verifier.child.isolation import FILE_LIMIT
from cppo_lib.verifier.child.values import UNREADABLE, decode
from cppo_lib.verifier.pool import Outcome

SLACK = 64 << 10
REASON_LIMIT = 2000
OVERTIME = 1.5
"""A process is killed at this multiple of its CPU limit: a runaway is told from a near miss."""
_NO_MEMORY = ("MemoryError", "OSError: [Errno 12]")


class Finding(NamedTuple):
    """Verdict of one test and the reason; not `firm`: a time-out that load could explain."""

    verdict: str
    reason: str = ""
    firm: bool = True


def output_cap(expected: str) -> int:
    """Most bytes of output that are read: twice the expected and 64 KiB, but above 16 MiB no more than needed."""
    size = len(expected.encode("utf-8", "surrogatepass"))
    return min(2 * size + SLACK, max(FILE_LIMIT, size + SLACK))


def _split(report: bytes) -> tuple[str, str]:
    text = report.decode("utf-8", "replace")
    # What is no value becomes a reason, and a program can write what it likes into its own report.
    return text[:1], text[1:] if text[:1] == "V" else text[1:REASON_LIMIT].split("\n")[0]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _time_out(outcome: Outcome, limit: float) -> Finding | None:
    if outcome.killed in ("cpu", "wall") or outcome.status == -signal.SIGXCPU or outcome.cpu > limit:
        what = "wall time" if outcome.killed == "wall" else "CPU time"
        return Finding("TLE", f"{what} limit exceeded", firm=outcome.cpu >= OVERTIME * limit)
    return None


def ended(outcome: Outcome, report: bytes, limit: float) -> Finding | None:
    """The verdict that a process's end alone decides, None for a normal end within its limits."""
    letter, text = _split(report)
    late = _time_out(outcome, limit)
    if outcome.status == -signal.SIGKILL and not outcome.killed and late is None:
        return Finding("IE", "the test process was killed from outside (out of memory?)")
    if not letter:
        if outcome.status == SETUP_FAILED:
            return Finding("IE", "the test process could not be isolated")
        firm = late is None or late.firm
        return Finding("CE", "the program could not be compiled within its limits", firm)
    if letter == "C":
        return Finding("CE", text)
    if late:
        return late
    if outcome.killed == "disk":
        return Finding("OLE", "too many or too large files")
    if letter == "O":
        return Finding("OLE", "the returned value is too large")
    if outcome.status == 0:
        return None
    if letter == "E":
        return Finding("MLE" if text.startswith(_NO_MEMORY) else "RE", text)
    if outcome.status < 0:
        return Finding("RE", f"killed by {_signal_name(-outcome.status)}")
    return Finding("RE", f"exit status {outcome.status}")


def _compared(problem: Problem, test: Test, answer: Any, wrong: str) -> Finding:
    """AC or WA; IE where a trusted checker fails."""
    try:
        same = compare.resolve(problem.mode, problem.comparator)(test.input, answer, test.expected)
    except RecursionError:  # a value nested too deep to compare
        return Finding("WA", wrong)
    except Exception as error:
        return Finding("IE", f"comparator {problem.comparator} failed: {type(error).__name__}: {error}")
    return Finding("AC") if same else Finding("WA", wrong)


def stdio(problem: Problem, test: Test, outcome: Outcome, report: bytes, output: bytes) -> Finding:
    """Verdict of a `stdio` test from the bytes on standard output (as many as were captured)."""
    early = ended(outcome, report, problem.cpu_limit_s)
    if len(output) > output_cap(test.expected) and (early is None or early.verdict in ("RE", "TLE")):
        return Finding("OLE", "output limit exceeded")
    if early:
        return early
    return _compared(problem, test, output.decode("utf-8", "surrogateescape"), "wrong output")


def call(problem: Problem, test: Test, outcome: Outcome, report: bytes) -> Finding:
    """Verdict of a `call` test from the reported value."""
    early = ended(outcome, report, problem.cpu_limit_s)
    if early:
        return early
    if len(report) > output_cap(test.expected) + 4 * len(test.expected):  # tags make JSON longer
        return Finding("OLE", "the returned value is too large")
    letter, text = _split(report)
    if letter != "V":
        return Finding("RE", "the program ended before it returned a value")
    try:
        value = decode(json.loads(text))
    except UNREADABLE:
        return Finding("WA", "the returned value has no plain form")
    return _compared(problem, test, value, "wrong value")


def checked(problem: Problem, program: tuple[Outcome, bytes], check: tuple[Outcome, bytes]) -> Finding:
    """Verdict of an `assert` test from its two processes; only the checker can make it AC."""
    early = ended(*program, problem.cpu_limit_s)
    if early:
        return early
    letter, text = _split(check[1])
    late = _time_out(check[0], problem.cpu_limit_s)
    if letter == "D":
        return Finding("IE", f"the test itself is broken: {text}")
    if letter == "X":
        return Finding("MLE" if text.startswith(_NO_MEMORY) else "RE", text)
    if letter == "G":
        return Finding("RE", "the program ended before it answered")
    if letter in ("A", "B"):
        return Finding("WA", text)
    if late:
        return Finding("TLE", "the test ran out of time on the program's answers", firm=late.firm)
    if letter == "P" and check[0].status == 0:
        return Finding("AC")
    return Finding("IE", "the checking process ended abnormally")
