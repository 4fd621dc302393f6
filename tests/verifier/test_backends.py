"""The same verdicts from every back-end, with any number of workers, run after run, and on a busy machine.

The fixture set is every program of `verifier_programs`, in turns with one test and with several. Compared are whole
vectors: verdict, tests passed, first failing test and the verdict of each test that was run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from verifier_programs import CASES, NUMBERS, RIGHT, SHORT, SUM, Case, several, stdio
from verifier_yard import missing

from cppo_lib.data.problem import Problem
from cppo_lib.errors import ParameterError
from cppo_lib.verifier import Result, Verifier
from cppo_lib.verifier.cores import usable_cores
from cppo_lib.verifier.pool import BACKENDS

Vector = tuple[str, int, int | None, tuple[str, ...]]
SHARE = 5
"""The back-end spawn, which takes a fifth of a second for each program, judges every fifth of them."""


def repeats(number: int) -> int:
    """How many times over the tests of the fixture set's program of this number are run."""
    return 1 if number % 2 else 2


def vector(result: Result) -> Vector:
    """What must be the same wherever and whenever a program is judged."""
    return result.verdict, result.n_passed, result.first_fail, tuple(test.verdict for test in result.tests)


def judged(backend: str, workers: int, numbers: range) -> dict[str, Vector]:
    """The vectors of these programs of the fixture set, each judged anew."""
    cases: dict[int, Case] = {number: CASES[number] for number in numbers}
    pairs = [(several(case.problem, repeats(number)), case.program) for number, case in cases.items()]
    with Verifier(workers=workers, backend=backend) as verifier:
        results = verifier.verify_many(pairs)
    assert not any(result.cached for result in results)
    return {
        f"{number} {case.row} {case.name}": vector(result)
        for (number, case), result in zip(cases.items(), results, strict=True)
    }


def differences(one: dict[str, Vector], other: dict[str, Vector]) -> dict[str, tuple[Vector, Vector]]:
    return {name: (one[name], other[name]) for name in other if one[name] != other[name]}


def usable(backend: str) -> str:
    """The back-end's name; skips the test where it cannot be used."""
    if reason := missing(backend):
        pytest.skip(reason)
    return backend


@pytest.fixture(scope="module")
def vectors() -> dict[str, Vector]:
    """The vectors of the whole fixture set, judged one program at a time by warm interpreters."""
    return judged("zygote", 1, range(len(CASES)))


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """A loop on every core that gives way to nobody but the most urgent."""
    command = [
        sys.executable,
        "-c",
        "import os\nos.nice(5)\nwhile os.getppid() == PARENT: pass".replace("PARENT", str(os.getpid())),
    ]
    loops = [subprocess.Popen(command) for _ in range(usable_cores())]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_the_fixture_set_meets_every_verdict_in_every_mode() -> None:
    assert len({(repr(case.problem), case.program) for case in CASES}) >= 80
    seen = {(case.problem.mode, case.verdict) for case in CASES}
    verdicts = {"AC", "WA", "TLE", "MLE", "RE", "CE"}
    assert seen >= {(mode, verdict) for mode in ("stdio", "call", "assert") for verdict in verdicts}
    assert seen >= {("stdio", "OLE"), ("call", "OLE"), ("assert", "IE")}


def test_verdicts_are_the_written_ones(vectors: dict[str, Vector]) -> None:
    written = [case.verdict for case in CASES]
    assert [vector[0] for vector in vectors.values()] == written
    for number, (name, (verdict, passed, first, tests)) in enumerate(vectors.items()):
        total = len(CASES[number].problem.tests) * repeats(number)
        assert (first is None) == (verdict == "AC") and passed == (total if first is None else first), name
        assert tests == () if not tests else tests == ("AC",) * passed + ((verdict,) if first is not None else ()), name


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_gives_the_same_verdicts(vectors: dict[str, Vector], backend: str, workers: int) -> None:
    if (backend, workers) == ("zygote", 1):
        numbers = range(0, len(CASES), 2)  # that again is what `vectors` was
    else:
        numbers = range(workers, len(CASES), SHARE) if backend == "spawn" else range(len(CASES))
    assert differences(vectors, judged(usable(backend), workers, numbers)) == {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_busy_machine_gives_the_same_verdicts(vectors: dict[str, Vector], backend: str) -> None:
    numbers = range(0, len(CASES), SHARE * 2 if backend == "spawn" else 1)
    with busy_cores():
        found = judged(usable(backend), 3, numbers)
    assert differences(vectors, found) == {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_times_near_the_limit_are_stable_on_a_busy_machine(backend: str) -> None:
    """Just under the limit is AC and just over it TLE, twenty times; neither the load nor a neighbour counts."""
    times = 20 if backend == "zygote" else 5
    work = "import time\nwhile time.process_time() < {}: pass\nprint(6) #{}"
    programs = [work.format(limit, number) for number in range(times) for limit in (0.07, 0.125)]
    with busy_cores(), Verifier(workers=3, backend=usable(backend)) as verifier:
        results = verifier.verify(SHORT, programs)
    assert [result.verdict for result in results] == ["AC", "TLE"] * times


WORK = "import time\nwhile time.process_time() < 0.07: pass\n"


def test_wall_time_does_not_count_while_others_have_the_core() -> None:
    """Within its CPU limit a program is judged, however long it waited; one that sleeps ends all the same.

    On one core with 40 loops that get as much of it as a program, so that 0.07 s of work take more than the 2.2 s after
    which a program of this limit that sleeps is ended.
    """
    thread = "import threading, time\ndef work():\n    while time.process_time() < 0.07: pass\n    print(6)\n"
    thread += "running = threading.Thread(target=work)\nrunning.start()\nrunning.join()"
    asked = stdio(("def check(candidate):\n    assert candidate() == 6\n", ""), mode="assert", fn_name="f", cpu=0.1)
    pairs = [
        (SHORT, thread),
        (
            stdio(("", "6"), ("1", "6"), cpu=0.1),
            "import sys\nif sys.stdin.read():\n    " + WORK.replace("\n", "\n    ") + "\nprint(6)",
        ),
        (asked, "def f():\n    " + WORK.replace("\n", "\n    ") + "return 6"),
        (SHORT, "import time\ntime.sleep(60)"),
    ]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    command = [sys.executable, "-S", "-c", f"import os\nwhile os.getppid() == {os.getpid()}: pass"]
    loops = []
    try:
        with Verifier(workers=len(pairs)) as verifier:
            loops += [subprocess.Popen(command, start_new_session=True) for _ in range(40)]
            results = verifier.verify_many(pairs)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
        os.sched_setaffinity(0, before)
    assert [result.verdict for result in results] == ["AC", "AC", "AC", "TLE"], results
    assert results[3].reason == "wall time limit exceeded"
    assert any(result.wall_s > 2.2 for result in results[:3]), "the core was not crowded"


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_tests_and_the_limit_of_all_together(backend: str) -> None:
    """The two rules that change which tests are run do so alike everywhere."""
    pairs = [(NUMBERS, case.program) for case in CASES if case.problem is NUMBERS]
    slow = "import time\nwhile time.process_time() < 0.2: pass\nprint(input())"
    pairs.append((dataclasses.replace(NUMBERS, cpu_limit_s=1.0), slow))
    with Verifier(workers=2, backend=usable(backend), all_tests=True, total_cpu_s=0.5) as verifier:
        results = verifier.verify_many(pairs)
    for case, result in zip([case for case in CASES if case.problem is NUMBERS], results, strict=False):
        assert [test.verdict for test in result.tests][:3] == ["AC"] * 3 and result.verdict == case.verdict, result
    assert results[-1].verdict == "TLE" and "together" in results[-1].reason and len(results[-1].tests) == 3


def test_results_name_each_test_on_every_backend() -> None:
    task: Problem = several(SUM, 3)
    for backend in [backend for backend in BACKENDS if not missing(backend)]:
        with Verifier(workers=1, backend=backend) as verifier:
            result = verifier.verify(task, [RIGHT])[0]
        assert [test.verdict for test in result.tests] == ["AC"] * 3 and not result.cached
        assert all(0 <= test.cpu_s <= test.wall_s + 0.05 and test.rss_mb > 5 for test in result.tests), result.tests
        assert result.cpu_s == pytest.approx(sum(test.cpu_s for test in result.tests), abs=1e-3)


def test_an_unknown_backend_is_named_with_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="'docker'.*zygote, spawn, bwrap"):
        Verifier(backend="docker")
