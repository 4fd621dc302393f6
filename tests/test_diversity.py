"""Diversity and the coordination decomposition against values worked out by hand."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from attempt_frames import hand_made, simulate

from cppo_lib.diversity import (
    decompose,
    decomposition,
    diversity_summary,
    expected_distinct,
    hill,
    tuple_table,
    vendi,
)
from cppo_lib.errors import ParameterError
from cppo_lib.programs import program_key, program_similarity
from cppo_lib.stats import pass_at_k

# --- programs -----------------------------------------------------------------------------------

SAME = [
    ("a = 1\nprint(a)", "b=1 # note\n\nprint( b )"),
    ("def f(x):\n    'doc'\n    return x + 1", "def g(y):\n    return y + 1"),
    ("import math as m\nprint(m.pi)", "import math as q\nprint(q.pi)"),
    ("print([i for i in range(3)])", "print([j for j in range(3)])"),
    ("def broken(:", "def   broken(:\n"),
]
DIFFERENT = [
    ("print(min(a))", "print(max(a))"),
    ("print(a[0])", "print(a[-1])"),
    ("a = 1\nb = 2\nprint(a)", "a = 1\nb = 2\nprint(b)"),
    ("a.sort()", "a.reverse()"),
    ("def broken(:", "def broken(::"),
    ("", "pass"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_programs_that_are_the_same(a: str, b: str) -> None:
    assert program_key(a) == program_key(b)
    assert program_similarity(a, b) == 1.0


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_programs_that_differ(a: str, b: str) -> None:
    assert program_key(a) != program_key(b)
    assert program_similarity(a, b) == program_similarity(b, a) < 1.0


@pytest.mark.parametrize("text", ["+".join(["1"] * 20_000), "(" * 500, "x = '\\d'", "a\0b", "\ud800"])
def test_odd_programs_have_a_key(text: str) -> None:
    assert program_key(text) == program_key(text) != program_key("pass")


def test_similarity_by_hand() -> None:
    """print(1) has statement, call, `print`, 1; print(2) shares only `print`: 1 of 7 subtrees."""
    assert program_similarity("print(1)", "print(2)") == pytest.approx(1 / 7)


# --- indices ------------------------------------------------------------------------------------


def test_expected_distinct_by_hand() -> None:
    """Clusters of 3 and 1, two draws: C(4,2)=6 pairs, 3 within the first cluster, 3 mixed."""
    assert expected_distinct([3, 1], 4, k=2) == pytest.approx(1.5)
    assert expected_distinct([3], 4, k=2) == pytest.approx(1.0)  # the fourth is in no cluster


def test_expected_distinct_is_the_mean_over_draws() -> None:
    labels = [0, 0, 0, 1, 1, 2, 3, 3]
    draws = list(combinations(labels, 4))
    mean = sum(len(set(draw)) for draw in draws) / len(draws)
    assert expected_distinct([3, 2, 1, 2], 8, k=4) == pytest.approx(mean)


@pytest.mark.parametrize("q", [0, 1, 2])
def test_hill_number_of_equal_clusters_is_their_number(q: float) -> None:
    assert hill([5, 5, 5], q) == pytest.approx(3)


def test_hill_by_hand() -> None:
    assert hill([3, 1], 2) == pytest.approx(1 / (9 / 16 + 1 / 16))
    assert hill([3, 1], 1) == pytest.approx(4 / 3**0.75)  # exp of the entropy of (3/4, 1/4)
    assert hill([3, 1, 0], 0) == 2


def test_vendi_by_hand() -> None:
    assert vendi(np.eye(4)) == pytest.approx(4)
    assert vendi(np.ones((4, 4))) == pytest.approx(1)
    halves = [[1.0, 0.5], [0.5, 1.0]]  # eigenvalues of S/2: 3/4 and 1/4
    assert vendi([halves, np.eye(2)]) == pytest.approx([4 / 3**0.75, 2])


# --- tuples -------------------------------------------------------------------------------------


def test_tuple_table_by_hand() -> None:
    """One tuple names a method twice and fails with programs in clusters of 2, 1 and 1."""
    rows = hand_made([[[0, 0, 0, 0], [0, 1, 0, 0]]], coordinated=True)
    name, method = rows.loc[0, ["strategy", "program_method"]]
    rows.loc[1, ["strategy", "program", "program_method"]] = [
        f"{name.upper()}!",
        "print(7)",
        method,
    ]
    rows.loc[0:3, "followed"] = [True, False, True, True]
    first, second = tuple_table(rows).to_dict("records")
    assert (first["passed"], second["passed"]) == (False, True)
    assert (first["distinct_strategies"], second["distinct_strategies"]) == (3, 4)
    assert (first["duplicate"], second["duplicate"]) == (1, 0)
    assert (first["distinct_methods"], first["distinct_programs"]) == (3, 4)
    assert first["followed"] == 0.75
    assert first["wasted"] == pytest.approx(1 / 6)  # one of six pairs
    assert np.isnan(second["wasted"])


def test_programs_without_a_method_are_in_no_cluster() -> None:
    rows = hand_made([[[0, 0, 0, 0]]], coordinated=True)
    rows.loc[2:3, "program_method"] = None
    assert tuple_table(rows)["distinct_methods"].item() == 2
    assert tuple_table(rows.assign(program_method=None))["distinct_methods"].item() == 4


def test_summary_without_a_planner_has_nothing_to_say_about_plans() -> None:
    rows = hand_made([[[0, 1], [0, 0]]], coordinated=False)
    rows = rows.assign(strategy=None, valid=None, followed=None)
    summary = diversity_summary(rows)
    nothing = ["distinct_strategies", "duplicate_rate", "valid_rate", "follow_rate"]
    assert all(np.isnan(summary[name]) for name in nothing)
    assert summary["distinct_methods"] == pytest.approx(5 / 3)  # two clusters of two: 4 of 6 differ
    assert summary["effective_methods"] == pytest.approx(2)
    assert summary["waste_rate"] == 0


def test_summary_tells_coordinated_from_independent() -> None:
    direct, cppo = (diversity_summary(simulate(name)) for name in ("direct", "cppo"))
    assert cppo["distinct_strategies"] == 4 and cppo["duplicate_rate"] == 0
    assert cppo["distinct_methods"] > direct["distinct_methods"]
    assert cppo["vendi"] > direct["vendi"]
    assert 0.8 < cppo["follow_rate"] < 1 and cppo["valid_rate"] == 1


# --- coordination -------------------------------------------------------------------------------


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


def test_decomposition_equals_its_definition() -> None:
    passed = np.random.default_rng(1).random((5, 3)) < 0.4
    fails = 1.0 - passed
    choices = list(permutations(range(5), 3))
    apart = np.mean([np.prod([fails[t, k] for k, t in enumerate(choice)]) for choice in choices])
    means = fails.mean(axis=1)
    alike = np.mean([np.prod(means[list(choice)]) for choice in choices])
    terms = decompose(passed)
    assert terms["skill"] == pytest.approx(1 - alike)
    assert terms["heterogeneity"] == pytest.approx(alike - apart)
    assert terms["correlation"] == pytest.approx(apart - (~passed.any(axis=1)).mean())


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


def test_decomposition_needs_enough_tuples() -> None:
    with pytest.raises(ParameterError, match="at least K=4 tuples per problem, got 3"):
        decomposition(simulate("cppo", problems=2, tuples=3))
    uneven = simulate("cppo", problems=2, tuples=5)
    with pytest.raises(ParameterError, match="same number of tuples"):
        decomposition(uneven.iloc[:-4])
