"""Right verdicts: mutants of HumanEval judged like plain Python, and LiveCodeBench's grader as a second opinion."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import graders
import pytest
from lcb_cases import AGREED, WALL_S, Task
from lcb_divergences import DIVERGENCES, Divergence, tables
from mutants import Truth, mutants, run_in_plain_python

from cppo_lib.data.benchmarks import humaneval
from cppo_lib.data.problem import Problem
from cppo_lib.verifier import Result, Verifier

DOCS = Path(__file__).resolve().parents[2] / "docs"
CPU_S = 1
"""Limit of a mutant on both sides; the slowest one that passes takes 0.2 s."""
MOST = 6
"""Mutants per HumanEval problem."""
DIVERGENT = {case.idiom: case for group in DIVERGENCES.values() for case in group}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as made:
        yield made


# Mutants of HumanEval ------------------------------------------------------------------------
class Judged(NamedTuple):
    problem: Problem
    kind: str
    program: str
    truth: Truth
    result: Result


@pytest.fixture(scope="module")
def judged(verifier: Verifier) -> list[Judged]:
    cases = [
        (dataclasses.replace(problem, cpu_limit_s=float(CPU_S)), *mutant)
        for problem in humaneval.load()
        for mutant in mutants(str(problem.meta["reference"]), MOST)
    ]
    jobs = [(program, problem.tests[0].input, str(problem.fn_name)) for problem, _, program in cases]
    truths = run_in_plain_python(jobs, CPU_S)
    results = verifier.verify_many([(problem, program) for problem, _, program in cases])
    return [Judged(*case, truth, result) for case, truth, result in zip(cases, truths, results, strict=True)]


def test_mutants_are_many_and_meet_every_end(judged: list[Judged]) -> None:
    assert len({(case.problem.id, case.program) for case in judged}) == len(judged) >= 500
    assert len({case.problem.id for case in judged}) == 164
    assert min(Counter(case.kind for case in judged).values()) >= 10
    ends = Counter(case.truth.why for case in judged)
    assert ends.keys() == {"passed", "assertion", "exception", "CPU time"} and min(ends.values()) >= 3, ends
    assert (
        max(case.truth.cpu_s for case in judged if case.truth.passed) < CPU_S * 0.7
    )  # no passing mutant is near a limit


def test_a_mutant_is_accepted_exactly_when_plain_python_accepts_it(judged: list[Judged]) -> None:
    wrong = [case for case in judged if case.result.passed != case.truth.passed or case.result.verdict == "IE"]
    listing = "\n\n".join(
        f"{case.problem.id}, {case.kind}: plain Python {case.truth.why}, "
        f"verifier {case.result.verdict} {case.result.reason}\n{case.program}"
        for case in wrong
    )
    assert not wrong, f"{len(wrong)} of {len(judged)} mutants judged wrongly\n{listing}"


# LiveCodeBench's grader ----------------------------------------------------------------------
class Opinions(NamedTuple):
    """Verdicts of LiveCodeBench's grader and of the verifier."""

    lcb: str
    here: str


def opinions(verifier: Verifier, pairs: list[tuple[Task, str]]) -> list[Opinions]:
    theirs = graders.grade([(task.sample(), program) for task, program in pairs], WALL_S)
    ours = verifier.verify_many([(task.problem(), program) for task, program in pairs])
    return [Opinions(said, result.verdict) for said, result in zip(theirs, ours, strict=True)]


@pytest.fixture(scope="module")
def agreed(verifier: Verifier) -> dict[str, Opinions]:
    found = opinions(verifier, [(task, program) for task, program, _ in AGREED.values()])
    return dict(zip(AGREED, found, strict=True))


@pytest.fixture(scope="module")
def divergent(verifier: Verifier) -> dict[str, Opinions]:
    found = opinions(verifier, [(case.task, case.program) for case in DIVERGENT.values()])
    return dict(zip(DIVERGENT, found, strict=True))


def test_there_are_enough_cases_of_every_verdict() -> None:
    verdicts = Counter(verdict for _, _, verdict in AGREED.values())
    assert len(AGREED) >= 60 and verdicts.keys() == {"AC", "WA", "RE", "TLE", "CE"} and min(verdicts.values()) >= 3
    assert len(DIVERGENT) == sum(map(len, DIVERGENCES.values()))


@pytest.mark.parametrize("name", AGREED)
def test_livecodebench_agrees(agreed: dict[str, Opinions], name: str) -> None:
    said = agreed[name]
    assert (said.lcb == "AC") == (said.here == "AC"), said
    assert said.here == AGREED[name][2]


@pytest.mark.parametrize("case", DIVERGENT.values(), ids=DIVERGENT)
def test_livecodebench_differs_as_documented(divergent: dict[str, Opinions], case: Divergence) -> None:
    assert divergent[case.idiom] == (case.lcb, case.here)
    assert (case.lcb == "AC") != (case.here == "AC")


def test_the_docs_list_every_divergence() -> None:
    text = (DOCS / "verifier-divergences.md").read_text(encoding="utf-8")
    assert text.endswith("\n" + tables()), (
        "put what python tests/helpers/lcb_divergences.py prints at the end of the file"
    )


def test_a_missing_grader_names_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(graders, "FOLDER", tmp_path)
    with pytest.raises(RuntimeError, match="run make setup"):
        graders.grade([], WALL_S)
