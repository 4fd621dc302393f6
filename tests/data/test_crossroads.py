"""The crossroads world: programs do what the methods say, and the ceilings are what they claim to be."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import numpy as np
import pytest
from scipy.optimize import minimize

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.benchmarks.crossroads_methods import FAMILIES, evaluate
from cppo_lib.data.problem import from_json, to_json
from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import DatasetError
from cppo_lib.verifier import Verifier

SIZES = {"train_per_context": 25, "dev_per_context": 3, "test_per_context": 25, "hidden_tests": 2}


@pytest.fixture(scope="module")
def splits():
    return {split: load_benchmark("crossroads", split, **SIZES) for split in crossroads.SPLITS}


def test_size_of_the_world():
    assert len(FAMILIES) >= 6 and len(crossroads.contexts()) == 2 * len(FAMILIES)
    assert all(len(family.methods) == 8 for family in FAMILIES)
    for context in crossroads.contexts():
        assert sum(context.p) == pytest.approx(1) and sum(context.q) == pytest.approx(1)
        assert min(context.q) >= 0.03


def test_all_methods_pass_the_sample_and_one_passes_the_hidden_tests():
    """Every method of every context, run as a real program in the verifier on one problem of the context."""
    problems = load_benchmark("crossroads", "dev", **SIZES)[::3]
    assert len(problems) == len(crossroads.contexts())
    samples = [dataclasses.replace(p, tests=p.tests[-1:]) for p in problems]
    assert all(p.tests[0].visibility == "public" for p in samples)
    with Verifier() as verifier:
        for problem, sample in zip(problems, samples, strict=True):
            methods = crossroads.family_of(problem).methods
            programs = [method.program for method in methods]
            assert all(result.passed for result in verifier.verify(sample, programs)), problem.id
            for method, result in zip(methods, verifier.verify(problem, programs), strict=True):
                right = method.name == problem.meta["hidden_method"]
                assert result.verdict == ("AC" if right else "WA"), (problem.id, method.name, result.reason)
                assert right or result.first_fail == 0, "each hidden test must tell the methods apart"


def test_programs_print_what_the_methods_evaluate_to(splits):
    for problem in splits["test"][::7]:
        family = crossroads.family_of(problem)
        for test in problem.tests:
            outputs = [evaluate(method, list(map(int, test.input.split()))) for method in family.methods]
            assert len(set(outputs)) == (1 if test.visibility == "public" else 8)


def test_splits_and_corpus_do_not_overlap():
    world = crossroads.world(25, 3, 25, 40, 1, 0)
    texts = [p.statement for split in crossroads.SPLITS for p in world[split]]
    texts += [row["statement"] for row in world["corpus"]]
    assert len(texts) == len(set(texts))


def test_hidden_methods_follow_p(splits):
    for context in crossroads.contexts():
        drawn = [p.meta["hidden_method"] for p in splits["train"] if p.meta["group"] == context.name]
        counts = [drawn.count(method.name) for method in context.family.methods]
        assert counts == crossroads.quota(context.p, 25)
        assert all(abs(n - 25 * p) < 1 for n, p in zip(counts, context.p, strict=True))


def test_same_seed_same_world_other_seed_other_world(splits):
    again = load_benchmark("crossroads", "test", **SIZES)
    other = load_benchmark("crossroads", "test", **SIZES, seed=1)
    assert again == splits["test"] and other != splits["test"]


def test_problem_survives_the_file(splits):
    assert from_json(to_json(splits["dev"][0])) == splits["dev"][0]


def test_unknown_split_is_refused():
    with pytest.raises(DatasetError, match="train, dev, test"):
        load_benchmark("crossroads", "validation")


def test_asking_for_more_statements_than_there_are_is_refused():
    with pytest.raises(DatasetError, match="different statements: lower train_per_context"):
        load_benchmark("crossroads", "train", train_per_context=5000)


def test_direct_rate_is_the_pass_rate_of_independent_draws():
    context, rng = crossroads.contexts()[0], np.random.default_rng(0)
    right = rng.choice(8, size=200_000, p=context.p)
    tries = rng.choice(8, size=(200_000, 4), p=context.q)
    simulated = (tries == right[:, None]).any(axis=1).mean()
    assert crossroads.direct_rate(context.p, context.q, 4) == pytest.approx(simulated, abs=0.005)


@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_independent_ceiling_is_the_optimum(k):
    """Water-filling against a general-purpose optimiser over the simplex."""
    p = np.array(crossroads.contexts()[3].p)

    def loss(x: np.ndarray) -> float:
        q = np.exp(x - x.max())
        return -crossroads.direct_rate(p, q / q.sum(), k)

    starts = [np.log(p), np.zeros(8), np.random.default_rng(0).normal(size=8)]
    best = max(-minimize(loss, start, method="BFGS", options={"gtol": 1e-9}).fun for start in starts)
    assert crossroads.independent_ceiling(p, k) == pytest.approx(best, abs=1e-4)
    assert sum(crossroads.best_independent(p, k)) == pytest.approx(1)


def test_one_attempt_should_take_the_likeliest_method():
    p = crossroads.contexts()[0].p
    assert crossroads.independent_ceiling(p, 1) == crossroads.coordinated_ceiling(p, 1) == max(p)


def test_coordinated_ceiling_is_the_best_of_all_tuples():
    for context in crossroads.contexts():
        best = max(sum(subset) for subset in itertools.combinations(context.p, 4))
        assert crossroads.coordinated_ceiling(context.p, 4) == pytest.approx(best)


def test_the_ceilings_of_given_problems_follow_from_what_they_hide():
    """Two problems per context hide the two methods that are right most often: 1 - 1/2^4 by independent draws."""
    sizes = {"train_per_context": 1, "dev_per_context": 1}
    few, many = (crossroads.load("test", **sizes, test_per_context=number) for number in (2, 50))
    table = crossroads.ceilings(4, crossroads.hidden_methods(few))
    assert (table["independent"], table["coordinated"]) == (0.9375, 1.0) and len(table["contexts"]) == 12
    exact, world = crossroads.ceilings(4, crossroads.hidden_methods(many)), crossroads.ceilings(4)
    assert all(math.isclose(exact[name], world[name]) for name in ("direct", "independent", "coordinated"))
    one = [("middle/noisy", "mode"), ("middle/noisy", "mode"), ("middle/noisy", "mean")]
    assert list(crossroads.ceilings(1, one)["contexts"]) == ["middle/noisy"]
    assert math.isclose(crossroads.ceilings(1, one)["independent"], 2 / 3)


def test_ceilings_are_far_apart():
    table = crossroads.ceilings(4)
    for row in [table, *table["contexts"].values()]:
        assert row["direct"] + 0.15 < row["independent"] and row["independent"] + 0.2 < row["coordinated"]


def test_quota_by_hand():
    assert crossroads.quota((0.5, 0.3, 0.2), 10) == [5, 3, 2]
    assert crossroads.quota((0.5, 0.3, 0.2), 4) == [2, 1, 1]  # 2.0, 1.2, 0.8: the last has the largest remainder
    assert sum(crossroads.quota(crossroads.P_VALUES, 7)) == 7


def test_stratified_draws_are_shuffled_quotas():
    draws = crossroads.stratified((0.5, 0.5), 100, random.Random(0))
    assert draws.count(0) == 50 and draws != sorted(draws)
