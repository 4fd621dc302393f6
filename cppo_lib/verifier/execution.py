"""One program on one problem: start its tests one after the other, stop at the first failure.

An `Attempt` owns the memory files of the test that is running. Its standard output is such a file
rather than a pipe: the kernel caps it (RLIMIT_FSIZE), nothing has to be drained while the program
runs, and nobody but the judge reads it.
"""

from __future__ import annotations

import os
from typing import Any

from cppo_lib.problems import Problem
from cppo_lib.verifier import verdict
from cppo_lib.verifier.pool import Outcome, Zygote, memory_file
from cppo_lib.verifier.values import read_all
from cppo_lib.verifier.verdict import OVERTIME, Finding

SOURCE_LIMIT = 256 << 10
"""Longest program, in bytes of UTF-8."""


class Attempt:
    """The state of judging one program.

    Attributes:
        finding: verdict of the last finished test; `done` says that it is the program's.
        n_passed, first_fail: passed tests, index in `problem.tests` of the failing one.
        cpu, wall, rss: seconds and seconds summed over tests, MiB at the peak.
        output: the last test's standard output, kept for `capture` only.
        retries: how often it was started again after an internal error; `alone`: judged with
        nothing beside it.
    """

    def __init__(self, problem: Problem, program: str) -> None:
        self.problem, self.program = problem, program
        self.finding = Finding("IE", "not run")
        self.n_passed, self.first_fail = 0, None  # type: int, int | None
        self.cpu = self.wall = self.rss = 0.0
        self.retries, self.alone = 0, False
        self.capture, self.output = False, ""
        self.source = program.encode("utf-8", "surrogatepass")
        self.done = self._reject_unrunnable()
        self._files: dict[str, int] = {}
        self._waiting: dict[int, str] = {}
        self._outcomes: dict[str, Outcome] = {}

    def _reject_unrunnable(self) -> bool:
        if not self.source.strip():
            self.finding = Finding("CE", "no code")
        elif len(self.source) > SOURCE_LIMIT:
            self.finding = Finding("CE", f"the program is longer than {SOURCE_LIMIT} bytes")
        else:
            return False
        self.first_fail = 0
        return True

    @property
    def lasting(self) -> bool:
        """Whether the verdict would be the same on another day."""
        return self.finding.verdict != "IE" and self.finding.firm

    def start(self, zygote: Zygote) -> None:
        """Run the next test in `zygote`. Raises ZygoteDied."""
        test = self.problem.tests[self.n_passed]
        files, text = self._files, test.input.encode("utf-8", "surrogatepass")
        files["source"] = memory_file(self.source)
        files["report"] = memory_file(growing=True)
        match self.problem.mode:
            case "stdio":
                files["stdin"], files["stdout"] = memory_file(text), memory_file()
                self._spawn(zygote, "stdio", 0, "source", "report", "stdin", "stdout")
            case "call":
                files["arguments"] = memory_file(text)
                self._spawn(zygote, "call", 0, "source", "report", "arguments")
            case "assert":
                files["test"], files["judgement"] = memory_file(text), memory_file(growing=True)
                files["asked"], files["ask"] = os.pipe()
                files["answered"], files["answer"] = os.pipe()
                renamed = {
                    "source": "test",
                    "report": "judgement",
                    "inbox": "answered",
                    "outbox": "ask",
                }
                self._spawn(zygote, "program", 0, "source", "report", inbox="asked", outbox="answer")
                self._spawn(zygote, "check", 1, **renamed)
                for end in ("asked", "ask", "answered", "answer"):
                    os.close(files.pop(end))

    def _spawn(self, zygote: Zygote, kind: str, slot: int, *names: str, **renamed: str) -> None:
        limit = self.problem.cpu_limit_s
        job: dict[str, Any] = {
            "id": slot,
            "kind": kind,
            "slot": slot,
            "cpu": OVERTIME * limit,
            "wall": 2 * limit + 2,
            "memory": self.problem.memory_mb,
            "prelude": self.problem.prelude,
            "function": self.problem.fn_name,
        }
        self._waiting[slot] = kind
        renamed = {**{name: name for name in names}, **renamed}
        zygote.spawn(job, {name: self._files[source] for name, source in renamed.items()})

    def take(self, outcome: Outcome) -> bool:
        """Note the end of one process; True once the test is judged."""
        self._outcomes[self._waiting.pop(outcome.id)] = outcome
        if self._waiting:
            return False
        self.finding = self._judge()
        main = next(iter(self._outcomes.values())) if len(self._outcomes) == 1 else self._outcomes["program"]
        self.cpu += main.cpu
        self.wall += main.wall
        self.rss = max(self.rss, main.rss)
        self.release()
        if self.finding.verdict == "AC":
            self.n_passed += 1
            self.done = self.n_passed == len(self.problem.tests)
        else:
            self.first_fail, self.done = self.n_passed, True
        return True

    def _judge(self) -> Finding:
        test, report = (
            self.problem.tests[self.n_passed],
            read_all(self._files["report"]),
        )
        match self.problem.mode:
            case "stdio":
                cap = verdict.output_cap(test.expected) + 1
                output = os.pread(self._files["stdout"], cap, 0)
                self.output = output.decode(errors="replace") if self.capture else ""
                return verdict.stdio(self.problem, test, self._outcomes["stdio"], report, output)
            case "call":
                return verdict.call(self.problem, test, self._outcomes["call"], report)
            case _:
                program = self._outcomes["program"], report
                return verdict.checked(
                    self.problem,
                    program,
                    (self._outcomes["check"], read_all(self._files["judgement"])),
                )

    def reopen(self) -> None:
        """Make the last test count as not run, so that `start` runs it again."""
        self.release()
        self.done, self.first_fail = False, None

    def fail(self, reason: str) -> None:
        """Close the attempt with an internal error."""
        self.finding, self.first_fail, self.done = (
            Finding("IE", reason),
            self.n_passed,
            True,
        )

    def release(self) -> None:
        """Close the memory files of the current test."""
        for fd in self._files.values():
            os.close(fd)
        self._files, self._waiting, self._outcomes = {}, {}, {}
