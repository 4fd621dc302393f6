"""The verifier: runs programs on a problem's tests in isolated processes and returns verdicts.

    with Verifier() as verifier:
        results = verifier.verify(problem, programs)

Verdicts: AC accepted, WA wrong answer, TLE time, MLE memory, OLE output, RE run-time error, CE does not compile, IE internal
error (the verifier's fault: tried twice, never cached, never a pass). The calling process schedules and compares; it never
forks and never runs a program. See docs/verifier.md.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cppo_lib.errors import DatasetError
from cppo_lib.problems import Problem, Test
from cppo_lib.verifier import compare, probe
from cppo_lib.verifier.cache import Cache, problem_digest, program_key
from cppo_lib.verifier.execution import Attempt
from cppo_lib.verifier.pool import Zygote, ZygoteDied

PRELUDES = ("lcb", "none")


@dataclass(frozen=True)
class Result:
    """What became of one program.

    Attributes:
        verdict: AC, WA, TLE, MLE, OLE, RE, CE or IE: that of the first failing test; `passed` is `verdict == "AC"`.
        reason: one line for people; empty for AC.
        n_passed, n_tests: tests passed before the first failure, tests in all.
        first_fail: index in `problem.tests` of the first failing test, None for AC.
        cpu_s, wall_s: seconds over all tests run; rss_mb: peak resident memory (MiB).
        cached: taken from the cache; layers: state of every isolation layer.
    """

    verdict: str
    passed: bool
    reason: str
    n_passed: int
    n_tests: int
    first_fail: int | None
    cpu_s: float
    wall_s: float
    rss_mb: float
    cached: bool
    layers: Mapping[str, str]


class Verifier:
    """Judges programs with `workers` warm interpreters (default: all cores but one).

    Args:
        workers: how many tests run side by side.
        cache: SQLite file for verdicts, shared safely between processes; None keeps them in memory.

    Raises:
        IsolationError: a required isolation layer does not hold on this machine; the message names the fix.
        CPPOError: the cache file cannot be used.
    """

    def __init__(self, workers: int | None = None, cache: Path | None = None) -> None:
        self.workers = workers or max(1, len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else 1)
        self._zygotes: list[Zygote] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._cache = Cache(cache)
        self._finalizer = weakref.finalize(self, _close, self._zygotes, self._cache, self._owner)
        try:
            self._start()
            self.layers = self._probe()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and remove all files; harmless to repeat."""
        self._finalizer()

    def verify(self, problem: Problem, programs: Sequence[str]) -> list[Result]:
        """Judge programs for one problem; results in the order of `programs`."""
        return self.verify_many([(problem, program) for program in programs])

    def verify_many(self, pairs: Iterable[tuple[Problem, str]]) -> list[Result]:
        """Judge any mix of (problem, program) pairs; order kept, duplicates run once.

        Raises:
            DatasetError: a problem names an unknown comparator or prelude.
            IsolationError: a worker died and a new one cannot be started.
        """
        pairs = list(pairs)
        if os.getpid() != self._owner or not self._finalizer.alive:
            raise RuntimeError("this Verifier is closed, or was made by another process: make a new one here")
        problems = {id(problem): problem for problem, _ in pairs}
        for problem in problems.values():
            _check_names(problem)
        with self._lock:
            digests = {key: problem_digest(problem, self.layers) for key, problem in problems.items()}
            keys = [program_key(digests[id(problem)], program) for problem, program in pairs]
            known = self._cache.get(set(keys))
            attempts = {
                key: Attempt(*pair) for key, pair in zip(keys, pairs, strict=True) if key not in known
            }  # fmt: skip
            self._execute(attempts.values())
            rows = {key: _row(attempt) for key, attempt in attempts.items()}
            firm = {key: row for key, row in rows.items() if row["verdict"] != "IE" and attempts[key].finding.firm}
            self._cache.put(firm)
        return [
            Result(**(known.get(key) or rows[key]), cached=key in known, layers=self.layers) for key in keys
        ]  # fmt: skip

    # Workers -------------------------------------------------------------------------------------------------------
    def _start(self) -> None:
        """Bring the number of zygotes up to `workers`."""
        fresh = [Zygote() for _ in range(self.workers - len(self._zygotes))]
        self._zygotes.extend(fresh)
        for zygote in fresh:
            zygote.wait_ready()

    def _probe(self) -> dict[str, str]:
        """Run the hostile probe on the first zygote. Raises IsolationError."""
        lines = f"{Path(__file__).resolve()}\n{'root' if os.geteuid() == 0 else 'user'}\n"
        spy = _probe_problem(lines, 5.0)
        attempt = Attempt(spy, probe.PROGRAM)
        attempt.capture = True
        loop = Attempt(_probe_problem("", 0.04), probe.BUSY_LOOP)
        loop.alone = True
        self._execute([attempt, loop])
        holds = probe.parse(attempt.output)
        holds["L1"] = bool(holds.get("L1")) and loop.finding.verdict == "TLE"
        return probe.layer_map(holds, os.environ.get(probe.OPT_OUT) == "1")

    # Scheduling ----------------------------------------------------------------------------------------------------
    def _execute(self, attempts: Iterable[Attempt]) -> None:
        """Run attempts to the end. Whatever interrupts it, no process is left running."""
        try:
            self._start()
            _Schedule(self, attempts).run()
        except BaseException:
            for zygote in self._zygotes:
                zygote.close()
            self._zygotes.clear()
            raise

    def _replace(self, zygote: Zygote) -> Zygote:
        self._zygotes.remove(zygote)
        zygote.close()
        self._start()
        return self._zygotes[-1]


class _Schedule:
    """One batch: which attempt runs where, and what is tried again."""

    def __init__(self, verifier: Verifier, attempts: Iterable[Attempt]) -> None:
        self.verifier = verifier
        self.queue = deque(attempt for attempt in attempts if not attempt.done)
        self.alone: deque[Attempt] = deque()
        self.idle = list(verifier._zygotes)
        self.active: dict[Zygote, Attempt] = {}
        self.poll = select.poll()
        self.by_fd: dict[int, Zygote] = {}
        for zygote in self.idle:
            self._watch(zygote)

    def _watch(self, zygote: Zygote) -> None:
        self.by_fd[zygote.control.fileno()] = zygote
        self.poll.register(zygote.control, select.POLLIN)

    def run(self) -> None:
        """Until every attempt has its verdict."""
        try:
            while self.queue or self.alone or self.active:
                while self.idle and (self.queue or (self.alone and not self.active)):
                    self._begin(self.idle.pop(), (self.queue or self.alone).popleft())
                self._wait()
        finally:
            for attempt in self.active.values():
                attempt.release()

    def _begin(self, zygote: Zygote, attempt: Attempt) -> None:
        self.active[zygote] = attempt
        try:
            attempt.start(zygote)
        except ZygoteDied:
            self._lost(zygote)

    def _wait(self) -> None:
        deadline = min((zygote.busy_until for zygote in self.active), default=0.0)
        for fd, _ in self.poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
            zygote = self.by_fd[fd]
            try:
                outcome = zygote.receive()
            except ZygoteDied:
                self._lost(zygote)
            else:
                if self.active[zygote].take(outcome):
                    self._settle(zygote)
        now = time.monotonic()
        for zygote in [zygote for zygote in self.active if zygote.busy_until < now]:
            self._lost(zygote)

    def _settle(self, zygote: Zygote) -> None:
        """A test is judged: go on with the program's next test, or try again, or make room."""
        attempt = self.active.pop(zygote)
        if attempt.done:
            if attempt.finding.verdict == "IE" and attempt.retries == 0:
                attempt.retries += 1
                attempt.reopen()
            elif not attempt.finding.firm and not attempt.alone:
                attempt.alone = True  # load may explain this time-out: it counts only if it happens again in peace
                attempt.reopen()
                self.alone.append(attempt)
        if attempt.done or attempt.alone and attempt in self.alone:
            self.idle.append(zygote)
        else:
            self._begin(zygote, attempt)

    def _lost(self, zygote: Zygote) -> None:
        """A zygote died or hangs: replace it, and give its attempt a second chance."""
        self.poll.unregister(zygote.control)
        del self.by_fd[zygote.control.fileno()]
        attempt = self.active.pop(zygote, None)
        fresh = self.verifier._replace(zygote)
        self._watch(fresh)
        if zygote in self.idle:
            self.idle.remove(zygote)
        self.idle.append(fresh)
        if attempt is None:
            return
        attempt.reopen()
        attempt.retries += 1
        if attempt.retries > 1:
            attempt.fail("the worker died twice")
        else:
            self.queue.appendleft(attempt)


def _close(zygotes: list[Zygote], cache: Cache, owner: int) -> None:
    if os.getpid() != owner:
        return
    for zygote in zygotes:
        zygote.close()
    zygotes.clear()
    cache.close()


def _check_names(problem: Problem) -> None:
    known = compare.CALL if problem.mode == "call" else compare.STDIO
    where = f"{problem.source} problem {problem.id!r}"
    if problem.comparator not in known:
        raise DatasetError(f"{where}: unknown comparator {problem.comparator!r}; choose one of {', '.join(known)}")
    if problem.prelude not in PRELUDES:
        raise DatasetError(f"{where}: unknown prelude {problem.prelude!r}; choose one of {', '.join(PRELUDES)}")


def _probe_problem(text: str, cpu_limit_s: float) -> Problem:
    test = Test(input=text, expected="")
    return Problem("probe", "verifier", "probe", (test,), cpu_limit_s=cpu_limit_s, memory_mb=256, prelude="none")


def _row(attempt: Attempt) -> dict[str, Any]:
    """The fields of a Result that do not depend on where it came from."""
    return {
        "verdict": attempt.finding.verdict, "passed": attempt.finding.verdict == "AC",
        "reason": attempt.finding.reason, "n_passed": attempt.n_passed, "n_tests": len(attempt.order),
        "first_fail": attempt.first_fail, "cpu_s": round(attempt.cpu, 4), "wall_s": round(attempt.wall, 4),
        "rss_mb": round(attempt.rss, 1),
    }  # fmt: skip
