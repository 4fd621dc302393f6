"""One program on one problem: run its tests one after the other, stop at the first failure (or run them all).

An `Attempt` owns the memory files of its tests that are under way. A test's standard output is such a file rather than
a pipe: the kernel caps it (RLIMIT_FSIZE), nothing has to be drained while the program runs, and nobody but the judge
reads it.

A program with several tests has a process that forks one for each (see `zygote`). Once a test has passed, the next but
one is sent ahead, so that this process need not wait for the judge between tests; what a failing test makes pointless
is given up. The order in which tests are judged stays that of the problem.
"""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass, field
from typing import Any

from cppo_lib.data.problem import Problem
from cppo_lib.verifier import verdict
from cppo_lib.verifier.child.isolation import FILE_LIMIT
from cppo_lib.verifier.child.surroundings import COMPILE_S
from cppo_lib.verifier.child.values import read_all
from cppo_lib.verifier.child.wire import Channel, pair
from cppo_lib.verifier.pool import Outcome, Zygote, memory_file
from cppo_lib.verifier.verdict import OVERTIME, SLACK, Finding

SOURCE_LIMIT = 256 << 10
"""Longest program, in bytes of UTF-8."""
_ids = itertools.count()


@dataclass(frozen=True, slots=True)
class TestRun:
    """One test that was run: its verdict, CPU and wall seconds, and peak resident memory (MiB)."""

    __test__ = False  # not a pytest class

    verdict: str
    cpu_s: float
    wall_s: float
    rss_mb: float


@dataclass
class _Running:
    """A test under way: its index, its files, the processes not yet heard of by id, and those that have ended."""

    index: int
    files: dict[str, int] = field(default_factory=dict)
    waiting: dict[int, str] = field(default_factory=dict)
    ended: dict[str, Outcome] = field(default_factory=dict)

    def close(self) -> None:
        for fd in self.files.values():
            os.close(fd)


class Attempt:
    """The state of judging one program.

    Args:
        all_tests: go on after a failure; total_cpu_s: limit on the CPU seconds of all tests together.

    Attributes:
        tests: what became of each test so far; finding: that of the last one.
        done: whether the program is judged; `failure` is then its first failing test and why (None: all passed).
        retries: how often it was started again after an internal error; alone: judged with nothing beside it.
        output: the last test's standard output, kept for `capture` only.
        channel: to the process that serves the tests, if there is one.
    """

    def __init__(
        self, problem: Problem, program: str, *, all_tests: bool = False, total_cpu_s: float = math.inf
    ) -> None:
        self.problem, self.program = problem, program
        self.all_tests, self.total_cpu_s = all_tests, total_cpu_s
        self.tests: list[TestRun] = []
        self.finding = Finding("IE", "not run")
        self.failure: tuple[int, Finding] | None = None
        self.done = False
        self.retries, self.alone = 0, False
        self.capture, self.output = False, ""
        self.channel: Channel | None = None
        self.source = program.encode("utf-8", "surrogatepass")
        self._running: list[_Running] = []
        self._zygote: Zygote | None = None
        self._process: int | None = None
        if not self.source.strip():
            self.fail(Finding("CE", "no code"))
        elif len(self.source) > SOURCE_LIMIT:
            self.fail(Finding("CE", f"the program is longer than {SOURCE_LIMIT} bytes"))

    @property
    def lasting(self) -> bool:
        """Whether the verdict would be the same on another day."""
        return self.failure is None or (self.failure[1].verdict != "IE" and self.failure[1].firm)

    @property
    def awaited(self) -> set[int]:
        """Ids of the processes whose end the zygote will report and which matter."""
        ids = {process for running in self._running for process in running.waiting}
        return ids if self._process is None else ids | {self._process}

    # Starting --------------------------------------------------------------------------------
    def start(self, zygote: Zygote) -> None:
        """Run the next test in `zygote`, and from then on those after it. Raises Closed."""
        self._zygote = zygote
        if self.problem.mode == "assert":
            self._start_pair(zygote)
        elif len(self.problem.tests) - len(self.tests) == 1:
            running = self._open(len(self.tests))
            (kind,) = running.waiting.values()
            self._start(zygote, running, kind, 0, {**running.files, "source": self._source(running)})
        else:
            self._start_server(zygote)

    def _source(self, running: _Running) -> int:
        running.files["source"] = memory_file(self.source)
        return running.files["source"]

    def _open(self, index: int) -> _Running:
        """The files of a test in `stdio` or `call` mode."""
        test, running = self.problem.tests[index], _Running(index)
        self._running.append(running)
        running.waiting[next(_ids)] = self.problem.mode
        files, text = running.files, test.input.encode("utf-8", "surrogatepass")
        files["report"] = memory_file(growing=True)
        if self.problem.mode == "stdio":
            files["stdin"] = memory_file(text)
            files["stdout"] = memory_file()
        else:
            files["arguments"] = memory_file(text)
        return running

    def _job(self, process: int, kind: str, slot: int) -> dict[str, Any]:
        return {
            "id": process,
            "cpu": OVERTIME * self.problem.cpu_limit_s,
            "wall": self._wall,
            "kind": kind,
            "slot": slot,
            "tests": len(self.problem.tests),
            "memory": self.problem.memory_mb,
            "file": max(FILE_LIMIT, 4 * max(len(test.expected) for test in self.problem.tests)) + 2 * SLACK,
            "prelude": self.problem.prelude,
            "function": self.problem.fn_name,
        }

    @property
    def _wall(self) -> float:
        return 2 * self.problem.cpu_limit_s + 2

    def _start(self, zygote: Zygote, running: _Running, kind: str, slot: int, fds: dict[str, int]) -> None:
        process = next(process for process, what in running.waiting.items() if what == kind)
        zygote.start(self._job(process, kind, slot), fds, self._wall)

    def _start_pair(self, zygote: Zygote) -> None:
        """`assert` mode: the program and the checker, joined by two pipes."""
        running = _Running(len(self.tests))
        self._running.append(running)
        files, text = running.files, self.problem.tests[running.index].input.encode("utf-8", "surrogatepass")
        running.waiting = {next(_ids): "program", next(_ids): "check"}
        self._source(running)
        files["report"] = memory_file(growing=True)
        files["test"] = memory_file(text)
        files["judgement"] = memory_file(growing=True)
        pipes = ("asked", "ask"), ("answered", "answer")
        for ends in pipes:
            files.update(zip(ends, os.pipe(), strict=True))
        program = {"source": "source", "report": "report", "inbox": "asked", "outbox": "answer"}
        check = {"source": "test", "report": "judgement", "inbox": "answered", "outbox": "ask"}
        for slot, (kind, names) in enumerate((("program", program), ("check", check))):
            self._start(zygote, running, kind, slot, {name: files[file] for name, file in names.items()})
        for end in itertools.chain(*pipes):
            os.close(files.pop(end))

    def _start_server(self, zygote: Zygote) -> None:
        """Have a process made that compiles the program, and send it the first test."""
        self._process = next(_ids)
        self.channel, theirs = pair()
        source = memory_file(self.source)
        try:
            job = self._job(self._process, self.problem.mode, self._process % 2)
            zygote.start(job, {"source": source, "channel": theirs.fileno()}, COMPILE_S)
        finally:
            theirs.close()
            os.close(source)
        self._feed()

    def _feed(self) -> None:
        """Keep the process that serves the tests supplied: with one, or with two once a test has passed."""
        assert self.channel is not None and self._zygote is not None
        ahead = 2 if self.tests and self.finding.verdict == "AC" else 1
        while len(self._running) < ahead and len(self.tests) + len(self._running) < len(self.problem.tests):
            running = self._open(len(self.tests) + len(self._running))
            (process,) = running.waiting
            named = [name for name in ("report", "stdin", "stdout", "arguments") if name in running.files]
            limit = OVERTIME * self.problem.cpu_limit_s
            self.channel.request(process, limit, self._wall, [running.files[name] for name in named])
        self._zygote.expect(COMPILE_S + self._wall)

    # Judging ---------------------------------------------------------------------------------
    def take(self, outcome: Outcome) -> bool:
        """Note the end of a process; True once a test is judged, so that `proceed` or another start is due."""
        running = self._running[0]
        if outcome.id == self._process:
            report = read_all(running.files["report"])
            if report or self.tests:  # it had compiled the program, and then it was no program's doing
                self.finding = Finding("IE", "the process that runs the tests was killed from outside")
            else:
                self.finding = verdict.ended(outcome, report, COMPILE_S) or Finding("IE", "no test was run")
            self._settle(TestRun(self.finding.verdict, outcome.cpu, outcome.wall, outcome.rss))
            return True
        running.ended[running.waiting.pop(outcome.id)] = outcome
        if running.waiting:
            return False
        main = running.ended.get("program") or next(iter(running.ended.values()))
        self.finding = self._judge(running)
        self._settle(TestRun(self.finding.verdict, main.cpu, main.wall, main.rss))
        return True

    def _settle(self, test: TestRun) -> None:
        """Write down the first of the running tests."""
        self._running.pop(0).close()
        self.tests.append(test)
        spent = sum(run.cpu_s for run in self.tests)
        if self.finding.verdict != "AC" and self.failure is None:
            self.failure = len(self.tests) - 1, self.finding
        elif spent > self.total_cpu_s and len(self.tests) < len(self.problem.tests) and self.failure is None:
            firm = spent > OVERTIME * self.total_cpu_s
            self.failure = len(self.tests), Finding("TLE", "CPU time limit of all tests together exceeded", firm)
            self.done = True
        stops = self.finding.verdict == "CE" or not (self.all_tests or self.failure is None)
        self.done = self.done or stops or len(self.tests) == len(self.problem.tests)

    def _judge(self, running: _Running) -> Finding:
        test, report = self.problem.tests[running.index], read_all(running.files["report"])
        match self.problem.mode:
            case "stdio":
                cap = verdict.output_cap(test.expected) + 1
                output = os.pread(running.files["stdout"], cap, 0)
                self.output = output.decode(errors="replace") if self.capture else ""
                return verdict.stdio(self.problem, test, running.ended["stdio"], report, output)
            case "call":
                return verdict.call(self.problem, test, running.ended["call"], report)
            case _:
                check = running.ended["check"], read_all(running.files["judgement"])
                return verdict.checked(self.problem, (running.ended["program"], report), check)

    def proceed(self) -> bool:
        """Go on with the next test where a process is there to serve it; False if a new start is due. Raises Closed."""
        if self.channel is None:
            return False
        self._feed()
        return True

    def reopen(self) -> None:
        """Make the last judged test count as not run, so that `start` runs it again."""
        self.release()
        if self.tests:
            self.tests.pop()
        if self.failure is not None and self.failure[0] >= len(self.tests):
            self.failure = None
        self.done = False

    def fail(self, finding: Finding) -> None:
        """Close the attempt with a finding on the next test."""
        self.finding, self.done = finding, True
        if self.failure is None:
            self.failure = len(self.tests), finding

    def release(self) -> None:
        """Hang up, and close the files of the running tests."""
        while self._running:
            self._running.pop().close()
        if self.channel is not None:
            self.channel.close()
        self.channel, self._process, self._zygote = None, None, None
