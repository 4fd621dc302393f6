"""Shared ideas and waste: what a judge is asked, what is left open, and that the order of attempts means nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from attempt_frames import hand_made, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.ideas import IdeaPair, same_idea_rate, same_ideas, wasted_attempts

PROPERTY = settings(max_examples=100)


def with_programs(*programs: str) -> pd.DataFrame:
    rows = hand_made([[[0] * len(programs)]], coordinated=True)
    return rows.assign(program=list(programs), program_method=None)


def test_methods_in_the_records_are_the_judge() -> None:
    """Methods m, m, n and none: of the three judged pairs one shares its idea; pairs with the last are not judged."""
    rows = hand_made([[[0, 0, 0, 0]]], coordinated=True)
    rows["program_method"] = ["m", "m", "n", None]
    same = same_ideas(rows)
    assert np.array_equal(same[0, :3, :3], [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert np.isnan(same[0, 3]).all() and np.isnan(same[0, :, 3]).all()
    assert same_idea_rate(same) == pytest.approx(1 / 3)


def test_nobody_judges() -> None:
    rows = simulate("direct", problems=2).assign(program_method=None)
    same = same_ideas(rows)
    assert same.shape == (8, 4, 4) and np.isnan(same).all() and np.isnan(same_idea_rate(same)).all()
    codes, passed = np.zeros((8, 4), dtype=np.int64), np.zeros((8, 4), dtype=bool)
    assert np.isnan(wasted_attempts(same, codes, passed)).all()


def test_a_judge_is_asked_once_about_each_pair() -> None:
    """Three different programs, two of them twice (one in other names): three pairs, in alphabetical order."""
    rows = with_programs("print(2)", "print(1)", "x = 3\nprint(x)", "y = 3\nprint(y)", "print(2)")
    asked: list[IdeaPair] = []

    def judge(pairs: Sequence[IdeaPair]) -> list[bool | None]:
        asked.extend(pairs)
        return [pair.first == "print(1)" or None for pair in pairs]

    (same,) = same_ideas(rows, judge)
    assert len(asked) == len(set(asked)) == 3
    assert all(pair.first < pair.second and pair.problem_id == rows["problem_id"].iloc[0] for pair in asked)
    assert same[2, 3] == same[0, 4] == 1  # known without asking
    assert (same[1] == 1).all()
    assert np.isnan(same[0, 2]) and np.isnan(same[3, 4])


def test_a_judge_that_leaves_pairs_out_is_an_error() -> None:
    with pytest.raises(ParameterError, match="gave 0 answers for 1 pairs"):
        same_ideas(with_programs("print(1)", "print(2)"), lambda pairs: [])


def test_waste_by_hand() -> None:
    """Ideas 0 0 0 1 1: it fails, fails, passes; it passes, passes with the same program. Two are wasted.

    The second failure repeats a failed idea; the third attempt passes, so it is none; the fifth repeats a program.
    """
    ideas = np.array([[0, 0, 0, 1, 1]])
    same = (ideas[:, :, None] == ideas[:, None, :]).astype(float)
    passed = np.array([[False, False, True, True, True]])
    assert wasted_attempts(same, np.array([[0, 1, 2, 3, 3]]), passed) == pytest.approx(2 / 5)
    same[0, 0, 1] = same[0, 1, 0] = np.nan
    assert wasted_attempts(same, np.array([[0, 1, 2, 3, 3]]), passed) == pytest.approx(1 / 5)


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=7), st.data())
def test_the_order_of_attempts_means_nothing(attempts: list[tuple[int, int]], data: st.DataObject) -> None:
    """An attempt is an idea and a variant of it; what passes is drawn for each program."""
    programs = [3 * idea + variant for idea, variant in attempts]
    passing = data.draw(st.sets(st.integers(0, 8)))
    order = data.draw(st.permutations(range(len(attempts))))

    def waste(places: Sequence[int]) -> float:
        codes = np.array([[programs[place] for place in places]])
        same = (codes[:, :, None] // 3 == codes[:, None, :] // 3).astype(float)
        return float(wasted_attempts(same, codes, np.isin(codes, list(passing)))[0])

    failed_ideas = {code // 3 for code in programs if code not in passing}
    useful = len(failed_ideas) + len(passing.intersection(programs))
    assert waste(range(len(attempts))) == waste(order) == pytest.approx(1 - useful / len(attempts))
