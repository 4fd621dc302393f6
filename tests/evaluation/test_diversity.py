"""Diversity indices against values worked out by hand, and properties that hold for all records."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from attempt_frames import hand_made, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

from cppo_lib.evaluation.diversity import (
    LEVELS,
    breadth,
    diversity_summary,
    expected_distinct,
    hill,
    problem_table,
    tuple_table,
    vendi,
)
from cppo_lib.evaluation.estimators import KEY
from cppo_lib.evaluation.ideas import IdeaPair

PROPERTY = settings(max_examples=100)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=8)

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


def test_many_problems_at_once_and_empty_clusters() -> None:
    """Zeros pad shorter rows and change no digit; a problem without any cluster has no effective number."""
    sizes = np.array([[3, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    for q in (0, 1, 2):
        together = hill(sizes, q)
        assert together[0] == hill([3, 1], q) and together[1] == pytest.approx(4) and np.isnan(together[2])
    assert expected_distinct(sizes, [4, 4, 4], k=2) == pytest.approx([1.5, 2, 0])


@PROPERTY
@given(SIZES, st.data())
def test_indices_keep_their_order_and_bounds(sizes: list[int], data: st.DataObject) -> None:
    orders = [float(hill(sizes, q)) for q in (0, 1, 2)]
    assert len(sizes) == orders[0] >= orders[1] - 1e-9 >= orders[2] - 2e-9 >= 1 - 3e-9
    n = sum(sizes)
    curve = [float(expected_distinct(sizes, n, k=k)) for k in range(1, n + 1)]
    assert curve[0] == pytest.approx(1) and curve[-1] == pytest.approx(len(sizes))
    steps = np.diff(curve)
    assert (steps >= -1e-9).all() and (np.diff(steps) <= 1e-9).all()  # every draw adds less than the one before
    other = data.draw(st.permutations(sizes))
    assert [float(hill(other, q)) for q in (0, 1, 2)] == pytest.approx(orders)
    assert expected_distinct(other, n, k=min(4, n)) == pytest.approx(curve[min(4, n) - 1])


@PROPERTY
@given(SIZES, st.integers(1, 5))
def test_duplicates_add_no_breadth(sizes: list[int], extra: int) -> None:
    """More of the most frequent cluster lowers every index; as many more of each changes no effective number."""
    more = [*sorted(sizes)[:-1], max(sizes) + extra]
    for q in (0, 1, 2):
        assert float(hill(more, q)) <= float(hill(sizes, q)) + 1e-9
        assert float(hill([extra * size for size in sizes], q)) == pytest.approx(float(hill(sizes, q)))
    k = min(4, sum(sizes))
    assert float(expected_distinct(more, sum(more), k=k)) <= float(expected_distinct(sizes, sum(sizes), k=k)) + 1e-9


@PROPERTY
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_vendi_of_equal_or_different_is_a_hill_number(labels: list[int]) -> None:
    kernel = np.equal.outer(labels, labels).astype(float)
    assert vendi(kernel) == pytest.approx(float(hill(np.unique(labels, return_counts=True)[1], 1)))
    twice = np.kron(np.ones((2, 2)), kernel)
    assert vendi(twice) == pytest.approx(float(vendi(kernel)))


def test_vendi_of_an_incomplete_block_is_null() -> None:
    scores = vendi([np.eye(2), [[1, np.nan], [np.nan, np.nan]]])
    assert scores[0] == pytest.approx(2) and np.isnan(scores[1])


# --- levels -------------------------------------------------------------------------------------


def test_breadth_by_hand() -> None:
    """Problem 0 in pairs aa, ab; problem 1 in cd, and a pair in no cluster.

    Sizes 3 and 1 of 4: DA@2 is 1.5, as above. Sizes 1 and 1 of 4: of six pairs one holds two labels, four hold one and
    one none, 6/6 = 1.
    """
    rows = hand_made([[[0, 1], [0, 0]], [[1, 0], [0, 0]]], coordinated=True).sample(frac=1, random_state=1)
    labels = pd.Series(["a", "a", "a", "b", "c", "d", None, None])
    table = breadth(rows, labels)
    assert table["distinct_k"].tolist() == [1.5, 1]
    assert table["da_k"].tolist() == pytest.approx([1.5, 1])
    assert table["hill_0"].tolist() == [2, 2]
    assert table["hill_1"].tolist() == pytest.approx([4 / 3**0.75, 2])
    assert table["hill_2"].tolist() == pytest.approx([1.6, 2])
    passed = breadth(rows, labels.where(rows["passed"]))
    assert passed["hill_0"].tolist() == [1, 1] and passed["distinct_k"].tolist() == [0.5, 0.5]
    assert breadth(rows, labels.where(labels == "x")).isna().to_numpy().all()


def test_rarefaction_of_independent_attempts_is_their_distinct_k() -> None:
    """The same expectation, estimated from blocks or from all attempts; coordination adds to blocks only."""
    direct, cppo = (simulate(name, problems=300) for name in ("direct", "cppo"))
    for rows, gap in ((direct, 0.0), (cppo, 0.8)):
        means = breadth(rows, LEVELS["methods"](rows)).mean()
        assert means["distinct_k"] - means["da_k"] == pytest.approx(gap, abs=0.1)


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


def test_repetition_and_waste_of_a_tuple_by_hand() -> None:
    """Slots 0 and 1 write one program up to names, slot 2 its method otherwise, slot 3 another method; all fail.

    Attempt 1 repeats a program and attempt 2 a failed idea: two of four could not add a success. Of six pairs three
    share an idea. In the second tuple all four methods differ.
    """
    rows = hand_made([[[0, 0, 0, 0], [0, 0, 1, 0]]], coordinated=True)
    rows.loc[0:2, "program"] = ["a = 1\nprint(a)", "b = 1\nprint(b)", "print(1)"]
    rows.loc[0:2, "program_method"] = rows.loc[0, "program_method"]
    first, second = tuple_table(rows).to_dict("records")
    assert (first["duplicate_programs"], first["same_idea"], first["wasted_attempts"]) == (1 / 4, 3 / 6, 2 / 4)
    assert (second["duplicate_programs"], second["same_idea"], second["wasted_attempts"]) == (0, 0, 0)
    assert first["distinct_methods"] == 2 and first["distinct_programs"] == 3


def test_distances_of_a_tuple_are_those_of_its_pairs() -> None:
    """print(1) and print(free): 8 of 16 grams, 2 words of 3 in the strategies, effective numbers of two."""
    rows = hand_made([[[0, 1]]], coordinated=True)
    rows["program"] = ["print(1)", "print(free)"]
    rows["strategy"] = ["Largest first", "largest of all first"]
    (found,) = tuple_table(rows).to_dict("records")
    assert found["ast_distance"] == pytest.approx(1 / 2)
    assert found["strategy_distance"] == pytest.approx(1 / 2)
    assert found["vendi_ast"] == found["vendi_strategies"] == pytest.approx(4 / 3**0.75)  # eigenvalues 3/4 and 1/4
    assert 0 < found["opcode_distance"] < 1 < found["vendi_opcodes"] < 2


def test_a_judge_stands_in_for_methods() -> None:
    rows = hand_made([[[0, 0, 1, 0]]], coordinated=True).assign(program_method=None)
    assert tuple_table(rows)[["same_idea", "wasted_attempts"]].isna().to_numpy().all()
    asked: list[IdeaPair] = []

    def judge(pairs: list[IdeaPair]) -> list[bool | None]:
        asked.extend(pairs)
        return [True for _ in pairs]

    found = tuple_table(rows, judge)
    assert found["same_idea"].item() == 1 and len(asked) == 6
    assert found["wasted_attempts"].item() == 2 / 4  # the first failure is not waste, the success neither
    summary = diversity_summary(rows, judge)
    assert summary["same_idea_rate"] == 1 and summary["wasted_attempt_rate"] == 0.5


def test_problem_table_has_everything_by_problem() -> None:
    rows = simulate("cppo", problems=6, tuples=4)
    table, tuples, summary = problem_table(rows), tuple_table(rows), diversity_summary(rows)
    assert table.index.names == KEY[:2] and len(table) == 6
    first = tuples[tuples["problem_id"] == table.index[0][1]]
    assert table["vendi_ast"].iloc[0] == pytest.approx(first["vendi_ast"].mean())
    assert table["passed"].mean() == pytest.approx(summary["passed"])
    pooled = [f"{index}_{level}" for level in LEVELS for index in ("da", "hill_0", "hill_1", "hill_2")]
    assert {name: summary[name] for name in pooled} == pytest.approx(table[pooled].mean().to_dict())
    assert summary["effective_methods"] == summary["hill_1_methods"]


def test_one_attempt_has_no_pairs() -> None:
    rows = simulate("direct", problems=3, tuples=3, k=1)
    summary = diversity_summary(rows)
    assert summary["distinct_methods"] == summary["vendi"] == summary["vendi_ast"] == pytest.approx(1)
    assert all(np.isnan(summary[name]) for name in ("ast_distance", "same_idea_rate", "wasted_attempt_rate"))
