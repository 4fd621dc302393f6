"""pass@k against closed forms and brute force, and its two estimands apart."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from attempt_frames import hand_made, simulate
from released import named

from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.best_of import against_best
from cppo_lib.evaluation.bootstrap import difference_across_estimands, paired_difference, pass_at_k_curve
from cppo_lib.evaluation.estimators import (
    LADDER,
    IidScores,
    PooledScores,
    Scores,
    TupleScores,
    iid_pass_at_k,
    largest_k,
    pass_at_k,
    pooled_pass_at_k,
    pooled_table,
    score_table,
    tuple_pass_at_k,
)

# --- pass@k -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "c", "k"), [(8, 3, 4), (8, 1, 4), (4, 0, 4), (4, 2, 4), (6, 6, 2)])
def test_iid_pass_at_k_is_the_mean_over_subsets(n: int, c: int, k: int) -> None:
    subsets = list(combinations([1] * c + [0] * (n - c), k))
    assert iid_pass_at_k(c, n, k=k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_three_of_eight_by_hand() -> None:
    assert iid_pass_at_k(3, 8, k=4) == pytest.approx(1 - 5 / 70)  # C(5,4) = 5 of C(8,4) = 70 fail


def test_iid_pass_at_k_is_unbiased() -> None:
    """Exact expectation over Binomial(8, 0.3) draws equals 1 - 0.7^4."""
    counts = np.arange(9)
    weights = scipy.stats.binom.pmf(counts, 8, 0.3)
    assert weights @ iid_pass_at_k(counts, 8, k=4) == pytest.approx(1 - 0.7**4)


def test_tuple_pass_at_k_by_hand() -> None:
    tuples = [[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    assert tuple_pass_at_k(tuples) == pytest.approx(2 / 3)
    assert tuple_pass_at_k(tuples, k=1) == pytest.approx(3 / 12)
    assert tuple_pass_at_k(tuples, k=2) == pytest.approx((3 / 6 + 0 + 5 / 6) / 3)
    assert tuple_pass_at_k(np.ones((5, 3, 4))).shape == (5,)


def test_a_part_of_a_tuple_is_any_of_its_attempts_or_its_first() -> None:
    """A planner that puts its best method first: whoever follows its order gets more."""
    tuples = [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert tuple_pass_at_k(tuples, k=2) == pytest.approx((3 / 6 + 3 / 6) / 2)
    assert tuple_pass_at_k(tuples, k=2, prefix=True) == 1 / 2
    assert tuple_pass_at_k(tuples, k=1, prefix=True) == 1 / 2
    assert tuple_pass_at_k(tuples, k=4, prefix=True) == tuple_pass_at_k(tuples, k=4) == 1
    with pytest.raises(ParameterError, match="at least 5 samples"):
        tuple_pass_at_k(tuples, k=5, prefix=True)
    with pytest.raises(ParameterError, match="pass@0 needs"):
        tuple_pass_at_k(tuples, k=0, prefix=True)


def test_the_two_estimands_differ_on_the_same_verdicts() -> None:
    """Two tuples with one success each: a tuple always wins, four picked at random do not."""
    verdicts = [[[1, 0, 0, 0], [0, 1, 0, 0]]]
    assert pass_at_k(hand_made(verdicts, coordinated=True)) == 1.0
    assert pass_at_k(hand_made(verdicts, coordinated=False)) == pytest.approx(1 - 15 / 70)


def test_score_table_has_one_row_per_seed() -> None:
    frames = [simulate("cppo", seed=seed, problems=5) for seed in (0, 1)]
    scores = score_table(pd.concat(frames).sample(frac=1, random_state=0))
    assert scores.shape == (2, 5) and list(scores.index) == [0, 1]
    problem = scores.columns[3]
    first = frames[0][frames[0]["problem_id"] == problem]
    assert scores.loc[0, problem] == first.groupby("tuple_index")["passed"].any().mean()


def test_score_table_refuses_what_it_cannot_score() -> None:
    good = simulate("cppo", problems=3)
    with pytest.raises(ParameterError, match="no attempt records"):
        score_table(good.iloc[:0])
    with pytest.raises(ParameterError, match="mix coordinated tuples with i.i.d."):
        score_table(good.assign(coordinated=good["tuple_index"] == 0))
    with pytest.raises(ParameterError, match="several values of method: cppo, sft"):
        score_table(pd.concat([good, simulate("sft", problems=3)]))
    with pytest.raises(ParameterError, match="same attempt twice"):
        score_table(pd.concat([good, good.iloc[:1]]))
    with pytest.raises(ParameterError, match="tuples without 4 attempts"):
        score_table(good.iloc[1:])
    with pytest.raises(ParameterError, match="/test/002' is missing"):
        score_table(pd.concat([good, simulate("cppo", seed=1, problems=2)]))
    with pytest.raises(ParameterError, match="at least 5 samples"):
        score_table(good, k=5)


# --- the estimands as types ---------------------------------------------------------------------


def test_scores_say_what_they_estimate() -> None:
    tuples, iid = score_table(simulate("cppo", problems=3)), score_table(simulate("pkpo", problems=3), k=2)
    assert type(tuples) is TupleScores and tuples.estimand == "pass@4 of coordinated tuples"
    assert type(iid) is IidScores and iid.estimand == "pass@2 of i.i.d. attempts"
    first = score_table(simulate("cppo", problems=3), k=2, prefix=True)
    assert first.estimand == "pass@2 of coordinated tuples, first attempts"
    whole = score_table(simulate("cppo", problems=3), k=4, prefix=True)
    assert whole.estimand == tuples.estimand  # the first four of four are all of them


def test_what_is_computed_from_scores_is_no_score() -> None:
    """Types do not leak through arithmetic, and picking problems keeps them."""
    tuples, iid = score_table(simulate("cppo", problems=4)), score_table(simulate("pkpo", problems=4))
    for computed in (tuples - iid, pd.concat([tuples, iid]), tuples[tuples.columns[:2]], iid * 2):
        assert isinstance(computed, pd.DataFrame) and not isinstance(computed, Scores)
        with pytest.raises(ParameterError, match=r"got DataFrame: take them from estimators\.score_table"):
            paired_difference(tuples, computed)  # type: ignore[arg-type]
    some = tuples.on(list(tuples.columns[[2, 0]]))
    assert type(some) is TupleScores and list(some.columns) == list(tuples.columns[[2, 0]])
    first = score_table(simulate("cppo", problems=4), k=2, prefix=True)
    assert first.on(list(first.columns[:1])).estimand == first.estimand


def test_attempts_of_both_kinds_cannot_be_pooled() -> None:
    pooled = pd.concat([simulate("cppo", problems=3), simulate("pkpo", problems=3).assign(tuple_index=9)])
    with pytest.raises(ParameterError, match="several values of method"):
        pass_at_k(pooled)
    with pytest.raises(ParameterError, match="cppo mix coordinated tuples with i.i.d. attempts"):
        pass_at_k(pooled.assign(method="cppo"))


def test_two_estimands_are_compared_on_purpose_only() -> None:
    tuples, iid = score_table(simulate("cppo")), score_table(simulate("pkpo"))
    with pytest.raises(ParameterError, match="pass@4 of coordinated tuples and pass@4 of i.i.d. attempts"):
        paired_difference(tuples, iid, resamples=100)
    gap = difference_across_estimands(tuples, iid, resamples=100)
    assert gap.estimate == pytest.approx(tuples.mean_score() - iid.mean_score())
    back = difference_across_estimands(iid, tuples, resamples=100)
    assert back.estimate == pytest.approx(-gap.estimate)
    with pytest.raises(ParameterError, match="both scores are of coordinated tuples: call paired_difference"):
        difference_across_estimands(tuples, tuples)
    with pytest.raises(ParameterError, match="needs one k, got pass@4 of coordinated tuples and pass@2 of i.i.d."):
        difference_across_estimands(tuples, score_table(simulate("pkpo"), k=2))


@pytest.mark.parametrize("row", named("sweeps"))
def test_the_pooled_ladder_is_the_released_one(row) -> None:
    """Every rung that the smallest pool can serve, and no other."""
    smallest = min(attempts for attempts, _ in row["pools"])
    found = {str(k): pooled_pass_at_k(row["pools"], k) for k in LADDER if k <= smallest}
    assert found == pytest.approx(row["pass_at_k"], abs=5e-9)
    with pytest.raises(ParameterError, match=f"needs 0 <= successes <= samples and at least {2 * smallest} samples"):
        pooled_pass_at_k([*row["pools"], [smallest, 0]], 2 * smallest)


def test_pooled_scores_are_neither_those_of_tuples_nor_of_independent_attempts() -> None:
    attempts, others = simulate("cppo"), simulate("pkpo")
    pooled = pooled_table(attempts, k=4)
    assert type(pooled) is PooledScores
    assert pooled.estimand == "pass@4 of the pooled attempts of several tuples, as released"
    pools = attempts.groupby("problem_id")["passed"].agg(["count", "sum"])
    assert pooled.mean_score() == pytest.approx(pooled_pass_at_k(pools.to_numpy(), 4))
    tuples, iid = score_table(attempts), score_table(others)
    assert abs(pooled.mean_score() - tuples.mean_score()) > 0.01
    assert pooled_table(others, k=4).mean_score() == iid.mean_score()
    for other in (tuples, iid):
        with pytest.raises(ParameterError, match="these are different quantities"):
            paired_difference(pooled, other, resamples=100)
        for pair in ((pooled, other), (other, pooled)):
            with pytest.raises(ParameterError, match="these are different quantities"):
                difference_across_estimands(*pair, resamples=100)
            with pytest.raises(ParameterError, match="these are different quantities"):
                against_best(pair[0], {"other": pair[1]}, fixed="other", resamples=100, across_estimands=True)
    assert paired_difference(pooled, pooled_table(others, k=4), resamples=100).estimate != 0
    assert isinstance(pooled.on(list(pooled.columns[:2])), PooledScores)
    with pytest.raises(ParameterError, match="at least 32 samples"):
        pooled_table(attempts, k=32)
    with pytest.raises(ParameterError, match="several values of method"):
        pooled_table(pd.concat([attempts, others]), k=4)


def test_different_readings_of_a_tuple_are_different_estimands() -> None:
    attempts = simulate("cppo")
    with pytest.raises(ParameterError, match="and pass@2 of coordinated tuples, first attempts: these are different"):
        paired_difference(score_table(attempts, k=2), score_table(attempts, k=2, prefix=True))
    with pytest.raises(ParameterError, match="between pass@4 of coordinated tuples and pass@2"):
        paired_difference(score_table(attempts), score_table(attempts, k=2))


@pytest.mark.parametrize("successes", range(7))
def test_i_i_d_scores_are_tuple_scores_averaged_over_all_groupings(successes: int) -> None:
    """Why the comparison is fair: were the attempts exchangeable, both scores would have one expectation."""
    attempts = [1] * successes + [0] * (6 - successes)
    groupings = [tuple_pass_at_k(np.reshape(order, (2, 3))) for order in permutations(attempts)]
    assert np.mean(groupings) == pytest.approx(float(iid_pass_at_k(successes, 6, k=3)))


# --- curves -------------------------------------------------------------------------------------


def test_curves_go_as_far_as_the_records() -> None:
    tuples, iid = simulate("cppo"), simulate("pkpo")  # four tuples of four, or sixteen attempts
    assert (largest_k(tuples), largest_k(iid)) == (4, 16)
    assert list(pass_at_k_curve(tuples, resamples=50)) == [1, 2, 3, 4]
    assert list(pass_at_k_curve(iid, resamples=50)) == list(range(1, 9))
    assert list(pass_at_k_curve(iid, ks=[2, 16, 17], resamples=50)) == [2, 16]


def test_a_curve_holds_the_scores_and_their_intervals() -> None:
    for method in ("cppo", "pkpo"):
        attempts = simulate(method)
        curve = pass_at_k_curve(attempts, resamples=500)
        for k, point in curve.items():
            assert point.estimate == pytest.approx(pass_at_k(attempts, k=k))
            assert point.low < point.estimate < point.high
        estimates = [point.estimate for point in curve.values()]
        assert estimates == sorted(estimates)


def test_a_curve_of_prefixes_follows_the_slots() -> None:
    attempts = hand_made([[[1, 0, 0, 0]], [[0, 0, 1, 0]], [[0, 0, 0, 0]]], coordinated=True)
    ordered = pass_at_k_curve(attempts, prefix=True, resamples=50)
    assert [ordered[k].estimate for k in (1, 2, 3, 4)] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    picked = pass_at_k_curve(attempts, resamples=50)
    assert [picked[k].estimate for k in (1, 2, 3, 4)] == pytest.approx([1 / 6, 1 / 3, 1 / 2, 2 / 3])
