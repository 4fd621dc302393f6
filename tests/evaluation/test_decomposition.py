"""The split of pass@K into skill, heterogeneity and correlation, against values worked out by hand and exactly."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations, product
from math import prod

import numpy as np
import pytest
from attempt_frames import hand_made, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.decomposition import TERMS, decompose, decomposition
from cppo_lib.evaluation.estimators import pass_at_k, score_table

PROPERTY = settings(max_examples=100)


@st.composite
def verdicts(draw: st.DrawFn, least: int = 1) -> list[list[int]]:
    """Verdicts of T tuples of K attempts, T >= K."""
    size = draw(st.integers(least, 3))
    return draw(st.lists(st.lists(st.integers(0, 1), min_size=size, max_size=size), min_size=size, max_size=5))


def exact_terms(passed: list[list[int]]) -> dict[str, Fraction]:
    """The terms by their definition: every choice of K different tuples, in exact arithmetic."""
    fails = [[Fraction(1 - verdict) for verdict in row] for row in passed]
    size = len(fails[0])
    choices = list(permutations(range(len(fails)), size))
    means = [sum(row) / size for row in fails]
    apart = sum(prod(fails[t][k] for k, t in enumerate(choice)) for choice in choices) / len(choices)
    alike = sum(prod(means[t] for t in choice) for choice in choices) / len(choices)
    together = sum(prod(row) for row in fails) / len(fails)
    return {"skill": 1 - alike, "heterogeneity": alike - apart, "correlation": apart - together}


# --- by hand ------------------------------------------------------------------------------------


def test_decomposition_of_two_tuples_by_hand() -> None:
    """Tuples (1, 0) and (0, 1): one always wins, with half the skill needed.

    Each tuple fails half its attempts, so skill is 1 - 1/4. Slot 1 fails in the second tuple, slot
    2 in the first; over the two pairings the products are 0*0 and 1*1, mean 1/2: the slots are no
    different in rate, and choosing them from different tuples shows it as -1/4. Both tuples win,
    so failures avoid each other by 1/2.
    """
    terms = decompose([[1, 0], [0, 1]])
    assert terms["skill"] == pytest.approx(3 / 4)
    assert terms["heterogeneity"] == pytest.approx(-1 / 4)
    assert terms["correlation"] == pytest.approx(1 / 2)
    assert terms["observed"] == 1


def test_slots_that_always_do_the_same_are_heterogeneity() -> None:
    """Slot 1 always passes, slot 2 never: skill 1 - (1/2)^2, the rest is that the slots differ."""
    terms = decompose([[1, 0]] * 3)
    assert terms["skill"] == pytest.approx(3 / 4)
    assert terms["heterogeneity"] == pytest.approx(1 / 4)
    assert terms["correlation"] == pytest.approx(0)


def test_identical_attempts_pay_for_their_correlation() -> None:
    """Four copies of a program that passes on half of the tuples: skill promises 1 - q, correlation takes it back.

    The slots are alike, so heterogeneity is 0. Of 8 tuples 4 fail; four different ones all fail with probability
    4*3*2*1 / (8*7*6*5) = 1/70.
    """
    terms = decompose([[1] * 4] * 4 + [[0] * 4] * 4)
    assert terms["skill"] == pytest.approx(1 - 1 / 70)
    assert terms["heterogeneity"] == pytest.approx(0)
    assert terms["correlation"] == pytest.approx(1 / 70 - 1 / 2)


# --- the identity -------------------------------------------------------------------------------


@PROPERTY
@given(verdicts())
def test_terms_are_exact_and_sum_to_the_score(passed: list[list[int]]) -> None:
    expected, terms = exact_terms(passed), decompose(passed)
    assert sum(expected.values()) == Fraction(sum(map(max, passed)), len(passed))
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), abs=1e-14)
    assert float(sum(terms[name] for name in TERMS)) == pytest.approx(float(terms["observed"]), abs=1e-14)


@PROPERTY
@given(verdicts(least=2), st.data())
def test_neither_tuples_nor_slots_have_an_order(passed: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.permutations(range(len(passed))))
    slots = data.draw(st.permutations(range(len(passed[0]))))
    moved = decompose(np.array(passed)[np.ix_(rows, slots)])
    for name, value in decompose(passed).items():
        assert float(moved[name]) == pytest.approx(float(value), abs=1e-14)


def test_heterogeneity_is_not_negative_in_expectation() -> None:
    """Over all verdicts of 2 independent slots with rates 1/4 and 3/4 in 2 tuples, weighted by their probability."""
    rates, mean = (Fraction(1, 4), Fraction(3, 4)), dict.fromkeys(TERMS, Fraction(0))
    for flat in product((0, 1), repeat=4):
        rows = [list(flat[:2]), list(flat[2:])]
        weight = prod(rate if verdict else 1 - rate for row in rows for verdict, rate in zip(row, rates, strict=True))
        for name, value in exact_terms(rows).items():
            mean[name] += weight * value
    assert mean == {"skill": Fraction(3, 4), "heterogeneity": Fraction(1, 16), "correlation": 0}


def test_decomposition_is_unbiased() -> None:
    """Independent slots of rates .5, .1, .1: the estimates average to the closed form."""
    rates = np.array([0.5, 0.1, 0.1])
    passed = np.random.default_rng(2).random((20_000, 4, 3)) < rates
    terms = {name: values.mean() for name, values in decompose(passed).items()}
    skill = 1 - (1 - rates.mean()) ** 3
    total = 1 - np.prod(1 - rates)
    assert terms["skill"] == pytest.approx(skill, abs=0.006)
    assert terms["heterogeneity"] == pytest.approx(total - skill, abs=0.004)
    assert terms["correlation"] == pytest.approx(0, abs=0.006)


def test_terms_sum_to_the_score() -> None:
    for method in ("cppo", "direct"):
        attempts = simulate(method, problems=6, tuples=5)
        terms = decomposition(attempts)
        total = terms[["skill", "heterogeneity", "correlation"]].sum(axis=1)
        assert np.allclose(total, terms["observed"])
        assert terms["observed"].mean() == pytest.approx(pass_at_k(attempts))
        assert (terms["correlation"].abs().max() == 0) == (method == "direct")


def test_terms_are_tables_for_the_bootstrap() -> None:
    """Two problems with two tuples of two: the score table's rows and columns, and values of single problems."""
    attempts = hand_made([[[1, 0], [0, 1]], [[1, 0], [1, 0]]], coordinated=True)
    tables = {term: decomposition(attempts)[term].unstack("problem_id") for term in (*TERMS, "observed")}
    scores = score_table(attempts)
    assert all(table.index.equals(scores.index) and table.columns.equals(scores.columns) for table in tables.values())
    assert tables["correlation"].to_numpy() == pytest.approx(np.array([[1 / 2, 0]]))
    assert tables["heterogeneity"].to_numpy() == pytest.approx(np.array([[-1 / 4, 1 / 4]]))
    assert tables["observed"].to_numpy() == pytest.approx(scores.to_numpy())


def test_decomposition_needs_enough_tuples() -> None:
    with pytest.raises(ParameterError, match="at least K=4 tuples per problem, got 3"):
        decomposition(simulate("cppo", problems=2, tuples=3))
    uneven = simulate("cppo", problems=2, tuples=5)
    with pytest.raises(ParameterError, match="same number of tuples"):
        decomposition(uneven.iloc[:-4])
