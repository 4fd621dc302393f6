"""The verifier: runs programs on a problem's tests in isolated processes and returns verdicts.

    with Verifier() as verifier:
        results = verifier.verify(problem, programs)

Verdicts: AC accepted, WA wrong answer, TLE time, MLE memory, OLE output, RE run-time error, CE does
not compile, IE internal error (the verifier's fault: tried twice, never cached, never a pass). The
calling process schedules and compares; it never forks and never runs a program. More in
docs/verifier.md.
"""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cppo_lib.data.problem import Problem, Test
from cppo_lib.errors import DatasetError, IsolationError, ParameterError
from cppo_lib.verifier import compare, probe
from cppo_lib.verifier.attempt import Attempt, TestRun
from cppo_lib.verifier.cache import Cache, problem_digest, program_key
from cppo_lib.verifier.child.surroundings import RECURSION
from cppo_lib.verifier.cores import usable_cores
from cppo_lib.verifier.pool import BACKENDS, Pool, default_backend
from cppo_lib.verifier.schedule import Schedule

Progress = Callable[[int, int], None]
_FLUSH_S = 1.0
SECRET = Path(__file__).resolve().parents[1] / "data" / "problem.py"
"""A file that no program may see; the probe tries."""


@dataclass(frozen=True)
class Result:
    """What became of one program.

    Attributes:
        verdict: AC, WA, TLE, MLE, OLE, RE, CE or IE: that of the first failing test. Who had no program to hand in may
            say so with another one (`reward.plan_following.UNMADE`).
        passed: whether the verdict is AC.
        reason: one line for people; empty for AC.
        n_passed, n_tests: tests passed (before the first failure, unless all are run), tests in all.
        first_fail: index in `problem.tests` of the first failing test, None for AC.
        cpu_s, wall_s: seconds over all tests run; rss_mb: peak resident memory (MiB).
        tests: each test that was run, in the problem's order; those after the first failure are not.
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
    tests: tuple[TestRun, ...]
    cached: bool
    layers: Mapping[str, str]

    @property
    def isolation(self) -> str:
        """`full`, or the required layers that were missing (the user had opted out of them)."""
        gone = probe.missing(self.layers)
        return f"without {', '.join(gone)}" if gone else "full"


class UnsandboxedWarning(UserWarning):
    """Required isolation layers are missing and the user has opted out of them."""


class Verifier:
    """Judges programs with `workers` interpreters (default: all usable cores but one).

    Args:
        workers: how many programs run side by side.
        cache: SQLite file for verdicts, shared safely between processes; None keeps them in memory.
        backend: `zygote`, `spawn` or `bwrap` (see `pool`); None takes the fastest that suits this system.
        all_tests: run every test of every program instead of stopping at the first that fails.
        total_cpu_s: limit on the CPU seconds of all tests of a program together.

    Raises:
        IsolationError: a required isolation layer does not hold on this machine; names the fix.
        ParameterError: an unknown back-end.

    Warns:
        CacheWarning: the cache file cannot be used, and verdicts are kept in memory.
    """

    def __init__(
        self,
        workers: int | None = None,
        cache: Path | None = None,
        *,
        backend: str | None = None,
        all_tests: bool = False,
        total_cpu_s: float = math.inf,
    ) -> None:
        if backend not in (None, *BACKENDS):
            raise ParameterError(f"unknown verifier backend {backend!r}; choose one of {', '.join(BACKENDS)}")
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._rules: dict[str, Any] = {"all_tests": all_tests, "total_cpu_s": total_cpu_s}
        self._cache = Cache(cache)
        self._pool = Pool(workers or max(1, usable_cores() - 1), backend or default_backend())
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

    @property
    def mechanisms(self) -> dict[str, str]:
        """What the workers could set up: `landlock`, `seccomp`, `hardening`, (as root) `identity`."""
        return self._pool.zygotes[0].mechanisms

    def verify(self, problem: Problem, programs: Sequence[str], progress: Progress | None = None) -> list[Result]:
        """Judge programs for one problem; results in the order of `programs`."""
        return self.verify_many([(problem, program) for program in programs], progress)

    def verify_many(self, pairs: Iterable[tuple[Problem, str]], progress: Progress | None = None) -> list[Result]:
        """Judge any mix of (problem, program) pairs; order kept, duplicates run once.

        Verdicts reach the cache while the batch runs, so that a killed one loses a second
        of work and an interrupted one nothing.

        Args:
            progress: called as progress(judged, distinct programs) whenever programs have been judged.

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
        digests = {key: problem_digest(problem, self.layers, self._rules) for key, problem in problems.items()}
        keys = [program_key(digests[id(problem)], program) for problem, program in pairs]
        by_key = dict(zip(keys, pairs, strict=True))
        with self._lock:
            known = self._cache.get(by_key)
            batch = _Batch(self._cache, len(by_key), progress)
            batch.skip(len(known))
            attempts = {Attempt(*pair, **self._rules): key for key, pair in by_key.items() if key not in known}
            try:
                self._execute(attempts, lambda attempt: batch.add(attempts[attempt], attempt))
            finally:
                batch.flush()
        rows = known | batch.rows
        return [_result(rows[key], key in known, self.layers) for key in keys]

    def _execute(self, attempts: Iterable[Attempt], finished: Callable[[Attempt], None] = lambda _: None) -> None:
        """Run attempts to the end. Whatever interrupts it, no process is left running."""
        try:
            self._pool.fill()
            Schedule(self._pool, attempts, finished).run()
        except BaseException:
            self._pool.close()
            raise

    def _probe(self) -> dict[str, str]:
        """Run hostile programs and see what holds. Raises IsolationError."""
        user = "root" if os.geteuid() == 0 else "user"
        spy = Attempt(_probe_problem(f"{SECRET}\n{user}\n", 5.0), probe.PROGRAM)
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
        layers = probe.layer_map(holds, zygote.mechanisms, allow_missing)
        if probe.OPT_OUT_KEY in layers:
            gone = probe.missing(layers, probe.NAMES)
            what = "; ".join(f"{name} ({probe.NAMES[name]}): {probe.COSTS[name]}" for name in gone)
            warnings.warn(f"unknown programs run without isolation layer {what}", UnsandboxedWarning, stacklevel=3)
        return layers


def _close(pool: Pool, cache: Cache, owner: int) -> None:
    if os.getpid() == owner:
        pool.close()
        cache.close()


def _check_names(problem: Problem) -> None:
    where = f"{problem.source} problem {problem.id!r}"
    if not compare.known(problem.mode, problem.comparator):
        raise DatasetError(f"{where}: unknown comparator {problem.comparator!r}; {_advice(problem)}")
    if problem.prelude not in RECURSION:
        raise DatasetError(f"{where}: unknown prelude {problem.prelude!r}; choose one of {', '.join(RECURSION)}")


def _advice(problem: Problem) -> str:
    if problem.comparator.startswith("checker:"):
        return "register it first with cppo_lib.verifier.compare.register_checker"
    return f"choose one of {', '.join(compare.nearest(problem.mode, problem.comparator))}"


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


class _Batch:
    """Verdicts of a batch on their way to the cache and to the caller."""

    def __init__(self, cache: Cache, total: int, progress: Progress | None) -> None:
        self.rows: dict[bytes, dict[str, Any]] = {}
        self._cache, self._total, self._progress = cache, total, progress
        self._judged, self._fresh, self._flushed = 0, {}, time.monotonic()  # type: int, dict[bytes, Any], float

    def skip(self, known: int) -> None:
        """Count programs whose verdict is known."""
        self._judged += known
        if known and self._progress:
            self._progress(self._judged, self._total)

    def add(self, key: bytes, attempt: Attempt) -> None:
        """Take over a judged attempt."""
        self.rows[key] = _row(attempt)
        if attempt.lasting:
            self._fresh[key] = self.rows[key]
        if time.monotonic() - self._flushed > _FLUSH_S:
            self.flush()
        self.skip(1)

    def flush(self) -> None:
        """Write what is new to the cache."""
        self._cache.put(self._fresh)
        self._fresh, self._flushed = {}, time.monotonic()


def _row(attempt: Attempt) -> dict[str, Any]:
    """The fields of a Result that do not depend on where it came from; plain JSON."""
    first_fail, finding = attempt.failure or (None, attempt.finding)
    return {
        "verdict": finding.verdict,
        "passed": finding.verdict == "AC",
        "reason": finding.reason,
        "n_passed": sum(test.verdict == "AC" for test in attempt.tests),
        "n_tests": len(attempt.problem.tests),
        "first_fail": first_fail,
        "cpu_s": round(sum(test.cpu_s for test in attempt.tests), 4),
        "wall_s": round(sum(test.wall_s for test in attempt.tests), 4),
        "rss_mb": round(max((test.rss_mb for test in attempt.tests), default=0.0), 1),
        "tests": [[t.verdict, round(t.cpu_s, 4), round(t.wall_s, 4), round(t.rss_mb, 1)] for t in attempt.tests],
    }


def _result(row: dict[str, Any], cached: bool, layers: Mapping[str, str]) -> Result:
    tests = tuple(TestRun(*test) for test in row["tests"])
    return Result(**{**row, "tests": tests}, cached=cached, layers=layers)
