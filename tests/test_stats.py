"""pass@k and its uncertainty against closed forms, brute force and scipy."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from attempt_frames import hand_made, simulate

from cppo_lib.errors import ParameterError
from cppo_lib.stats import (
    bootstrap_interval,
    holm,
    iid_pass_at_k,
    mcnemar,
    paired_difference,
    pass_at_k,
    score_table,
    sign_flip,
    tuple_pass_at_k,
)


def table(rows: list[list[float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[f"p{i}" for i in range(len(rows[0]))], dtype=float)


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


# --- intervals ----------------------------------------------------------------------------------


def test_interval_agrees_with_scipy_percentile_bootstrap() -> None:
    scores = np.random.default_rng(3).random(60)
    ours = bootstrap_interval(table([list(scores)]), resamples=20_000, seed=1)
    theirs = scipy.stats.bootstrap(
        (scores,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.estimate == pytest.approx(scores.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_paired_interval_agrees_with_scipy() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random(50), rng.random(50)
    ours = paired_difference(table([list(a)]), table([list(b)]), resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_bootstrap_of_coin_flips_has_the_binomial_spread() -> None:
    """The mean of a resample of 30 heads in 100 is Binomial(100, 0.3) / 100 exactly."""
    interval = bootstrap_interval(table([[1.0] * 30 + [0.0] * 70]), resamples=50_000)
    expected = scipy.stats.binom.ppf([0.025, 0.975], 100, 0.3) / 100
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=0.011)


def test_p_value_matches_the_normal_limit() -> None:
    rng = np.random.default_rng(6)
    a = rng.normal(0.13, 1, size=400)
    result = paired_difference(table([list(a)]), table([[0.0] * 400]))
    z = a.mean() / (a.std() / 20)
    assert result.p_value == pytest.approx(2 * scipy.stats.norm.sf(z), rel=0.15)
    assert result.p_one_sided == pytest.approx(scipy.stats.norm.sf(z), rel=0.15)


def test_no_difference_is_never_significant() -> None:
    same = table([[1.0, 0.0, 1.0, 0.0]])
    result = paired_difference(same, same, resamples=500)
    assert (result.estimate, result.low, result.high) == (0, 0, 0)
    assert (result.p_value, result.p_one_sided, result.second_p) == (1, 1, 1)


def test_pairing_narrows_the_interval() -> None:
    """Problems of very different difficulty: the gap of 0.1 on each is certain only when paired."""
    easy = np.linspace(0, 0.9, 40)
    result = paired_difference(table([list(easy + 0.1)]), table([list(easy)]), resamples=2_000)
    assert (result.low, result.high) == pytest.approx((0.1, 0.1))
    assert result.p_value < 0.001


def test_columns_are_paired_by_problem_and_not_by_position() -> None:
    a = table([[1.0, 0.0, 1.0]])
    result = paired_difference(a, a[["p2", "p0", "p1"]], resamples=200)
    assert (result.low, result.high) == (0, 0)
    with pytest.raises(ParameterError, match="'p2' has scores of one method only"):
        paired_difference(a, a[["p0", "p1"]])


def test_seeds_widen_the_interval() -> None:
    """Between-seed spread shows up: seeds at 0.2 and 0.8 on every problem, nothing between them."""
    rows = [[0.2] * 50, [0.8] * 50]
    interval = bootstrap_interval(table(rows))
    assert interval.estimate == pytest.approx(0.5) and interval.n_seeds == 2
    assert (interval.low, interval.high) == pytest.approx((0.2, 0.8))
    result = paired_difference(table(rows), table([[0.5] * 50]))
    assert (result.low, result.high) == pytest.approx((-0.3, 0.3))


def test_results_depend_on_the_seed_alone() -> None:
    a, b = table([[1.0, 0.0, 1.0, 0.0, 1.0]]), table([[0.0, 0.0, 1.0, 0.0, 0.0]])
    assert paired_difference(a, b, resamples=300) == paired_difference(a, b, resamples=300)
    assert bootstrap_interval(a, seed=1) == bootstrap_interval(a, seed=1)


# --- exact tests --------------------------------------------------------------------------------


def test_mcnemar_by_hand() -> None:
    """Eight problems gained, one lost: 2 * (1 + 9) / 2^9."""
    a = [1] * 8 + [0] + [1] * 5
    b = [0] * 8 + [1] + [1] * 5
    assert mcnemar(a, b) == pytest.approx(20 / 512)
    assert mcnemar([1, 0], [1, 0]) == 1.0
    with pytest.raises(ParameterError, match="scores of 0 and 1"):
        mcnemar([0.5], [1])


def test_binary_scores_get_mcnemar_and_others_the_sign_flip() -> None:
    a, b = table([[1.0] * 6 + [0.0]]), table([[0.0] * 6 + [1.0]])
    result = paired_difference(a, b, resamples=200)
    assert result.second_test == "McNemar" and result.second_p == pytest.approx(16 / 128)
    halves = paired_difference(a * 0.5, b * 0.5, resamples=200)
    assert halves.second_test == "sign flip" and halves.second_p == pytest.approx(16 / 128)


def test_sign_flip_by_hand() -> None:
    """Three positive differences: 2 of the 2^3 sign patterns are as extreme."""
    assert sign_flip([0.1, 0.2, 0.3]) == pytest.approx(2 / 8)
    assert sign_flip([0.1, 0.2, 0.3, 0.0]) == pytest.approx(2 / 8)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_sign_flip_of_no_or_one_difference_is_no_evidence() -> None:
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([0.0, 0.25, 0.0]) == 1.0
    assert sign_flip([0.25, 0.25]) == 0.5  # ++ and -- of four
