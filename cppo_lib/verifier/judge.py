"""The verifier: runs programs on a problem's tests in isolated processes and returns verdicts.

    with Verifier() as verifier:
        results = verifier.verify(problem, programs)

Verdicts: AC accepted, WA wrong answer, TLE time, MLE memory, OLE output, RE run-time error, CE does
not compile, IE internal error (the verifier's fault: tried twice, never cached, never a pass). The
calling process schedules and compares; it never forks and never runs a program. More in
docs/verifier.md.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cppo_lib.errors import DatasetError, IsolationError
from cppo_lib.problems import Problem, Test
from cppo_lib.verifier import compare, probe
from cppo_lib.verifier.cache import Cache, problem_digest, program_key
from cppo_lib.verifier.execution import Attempt
from cppo_lib.verifier.pool import Pool
from cppo_lib.verifier.schedule import Schedule
from cppo_lib.verifier.surroundings import RECURSION


@dataclass(frozen=True)
class Result:
    """What became of one program.

    Attributes:
        verdict: AC, WA, TLE, MLE, OLE, RE, CE or IE: that of the first failing test.
        passed: whether the verdict is AC.
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
        IsolationError: a required isolation layer does not hold on this machine; names the fix.
        CPPOError: the cache file cannot be used.
    """

    def __init__(self, workers: int | None = None, cache: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._cache = Cache(cache)
        self._pool = Pool(workers or max(1, _cores() - 1))
        self._finalizer = weakref.finalize(self, _close, self._pool, self._cache, self._owner)
        try:
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
            raise RuntimeError("this Verifier is closed or belongs to another process: make a new one")
        problems = {id(problem): problem for problem, _ in pairs}
        for problem in problems.values():
            _check_names(problem)
        digests = {key: problem_digest(problem, self.layers) for key, problem in problems.items()}
        keys = [program_key(digests[id(problem)], program) for problem, program in pairs]
        by_key = dict(zip(keys, pairs, strict=True))
        with self._lock:
            known = self._cache.get(by_key)
            attempts = {key: Attempt(*pair) for key, pair in by_key.items() if key not in known}
            self._execute(attempts.values())
            fresh = {key: _row(attempt) for key, attempt in attempts.items()}
            self._cache.put({key: row for key, row in fresh.items() if attempts[key].lasting})
        rows = known | fresh
        return [Result(**rows[key], cached=key in known, layers=self.layers) for key in keys]

    def _execute(self, attempts: Iterable[Attempt]) -> None:
        """Run attempts to the end. Whatever interrupts it, no process is left running."""
        try:
            self._pool.fill()
            Schedule(self._pool, attempts).run()
        except BaseException:
            self._pool.close()
            raise

    def _probe(self) -> dict[str, str]:
        """Run hostile programs and see what holds. Raises IsolationError."""
        user = "root" if os.geteuid() == 0 else "user"
        spy = Attempt(_probe_problem(f"{Path(__file__).resolve()}\n{user}\n", 5.0), probe.PROGRAM)
        spy.capture = True
        loop = Attempt(_probe_problem("", 0.04), probe.BUSY_LOOP)
        loop.alone = True
        self._execute([spy, loop])
        zygote = self._pool.zygotes[0]
        if not spy.output:
            raise IsolationError(
                f"the verifier's test processes do not run on this machine: {spy.finding.reason} "
                f"({zygote.log_line() or 'no message'})"
            )
        holds = probe.parse(spy.output)
        holds["L1"] = holds["L1"] and loop.finding.verdict == "TLE"
        allow_missing = os.environ.get(probe.OPT_OUT) == "1"
        return probe.layer_map(holds, zygote.mechanisms, allow_missing)


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _close(pool: Pool, cache: Cache, owner: int) -> None:
    if os.getpid() == owner:
        pool.close()
        cache.close()


def _check_names(problem: Problem) -> None:
    comparators = compare.CALL if problem.mode == "call" else compare.STDIO
    for what, name, choices in (
        ("comparator", problem.comparator, list(comparators)),
        ("prelude", problem.prelude, list(RECURSION)),
    ):
        if name not in choices:
            raise DatasetError(
                f"{problem.source} problem {problem.id!r}: unknown {what} {name!r}; choose one of {', '.join(choices)}"
            )


def _probe_problem(text: str, cpu_limit_s: float) -> Problem:
    return Problem(
        id="probe",
        source="verifier",
        statement="probe",
        tests=(Test(input=text, expected=""),),
        cpu_limit_s=cpu_limit_s,
        memory_mb=256,
        prelude="none",
    )


def _row(attempt: Attempt) -> dict[str, Any]:
    """The fields of a Result that do not depend on where it came from."""
    verdict, reason, _ = attempt.finding
    return {
        "verdict": verdict,
        "passed": verdict == "AC",
        "reason": reason,
        "n_passed": attempt.n_passed,
        "n_tests": len(attempt.problem.tests),
        "first_fail": attempt.first_fail,
        "cpu_s": round(attempt.cpu, 4),
        "wall_s": round(attempt.wall, 4),
        "rss_mb": round(attempt.rss, 1),
    }
