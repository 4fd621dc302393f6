"""The judge of plan-following decides by behaviour, not by spelling."""

from __future__ import annotations

import pytest

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.problem import Problem, Test
from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import IsolationError
from cppo_lib.model.engine import Completion
from cppo_lib.reward import plan_following
from cppo_lib.rollout.task import Slot
from cppo_lib.rollout.two_stage import Member, Sample
from cppo_lib.verifier import Verifier

MEAN = "a=list(map(int,input().split()))\nprint(sum(a)//len(a))"
OTHER_SPELLING = "import sys\nnumbers = [int(x) for x in sys.stdin.read().split()]\nprint(sum(numbers) // len(numbers))"
MODE = "a=list(map(int,input().split()))\nprint(max(a,key=a.count))"


@pytest.fixture(scope="module")
def probe():
    with Verifier() as verifier:
        yield plan_following.MethodProbe(verifier)


def member(programs: list[str], strategies: list[str | None]) -> Member:
    problem = load_benchmark("crossroads", "dev", train_per_context=1, dev_per_context=1, test_per_context=1)[0]
    assert crossroads.family_of(problem).name == "middle"
    sample = Sample([0], Completion([0]), "")
    slots = tuple(Slot("", strategy) for strategy in strategies)
    return Member(problem, (), None, slots, (sample,) * len(programs), tuple(programs))


def test_methods_are_recognised_by_what_programs_print(probe):
    programs = [MEAN, OTHER_SPELLING, MODE, "print(1)", "while True: pass", "print(", "raise ValueError"]
    found = probe.methods([member(programs, [None] * len(programs))])
    assert found == [["mean", "mean", "mode", None, None, None, None]]


def test_followed_compares_with_the_method_that_was_named(probe):
    attempt = member([MEAN, MEAN, MODE, MODE], ["mean", "mode", " Mode ", None])
    assert plan_following.followed(attempt, probe.methods([attempt])[0]) == [True, False, True, None]


def test_a_method_of_another_family_is_not_followed(probe):
    attempt = member([MEAN], ["plain sum"])
    assert plan_following.followed(attempt, probe.methods([attempt])[0]) == [False]


def test_members_are_verified_in_slot_order(probe):
    attempt = member([MODE, MEAN, "print("], [None, None, None])
    problem = attempt.problem
    with Verifier() as verifier:
        [results] = plan_following.verify_members([attempt], verifier)
    hidden = problem.meta["hidden_method"]
    assert [r.verdict for r in results] == ["AC" if hidden == name else "WA" for name in ("mode", "mean")] + ["CE"]


def test_more_than_half_a_percent_without_a_verdict_is_an_error() -> None:
    plan_following.check_internal_errors(["the worker died twice"], 10)
    plan_following.check_internal_errors(["the worker died twice"] * 2, 400)
    with pytest.raises(IsolationError, match=r"2 of 399 programs got no verdict \(IE: the worker died twice\)"):
        plan_following.check_internal_errors(["the worker died twice"] * 2, 399)


def test_public_only_is_known_where_the_public_tests_were_run():
    sample, hidden = Test("1\n", "1\n", "public"), Test("2\n", "4\n")
    echo, square, wrong = "print(input())", "print(int(input())**2)", "print(0)"
    first = Problem("a", "toy", "x", (sample, hidden))
    last = Problem("b", "toy", "x", (hidden, sample))
    with Verifier(workers=1) as stops, Verifier(workers=1, all_tests=True) as runs_all:
        for problem, verifier, expected in (
            (first, stops, [True, False, False]),
            (last, stops, [None, False, None]),  # the hidden test failed before the public one was reached
            (last, runs_all, [True, False, False]),
            (Problem("c", "toy", "x", (hidden,)), stops, [None, None, None]),
        ):
            results = verifier.verify(problem, [echo, square, wrong])
            assert [plan_following.public_only(problem, result) for result in results] == expected
