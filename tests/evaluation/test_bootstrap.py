"""The paired bootstrap against scipy, exact distributions and simulation."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
from numpy.typing import ArrayLike

from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.bootstrap import Difference, bootstrap_interval, paired_difference, resampled_means
from cppo_lib.evaluation.estimators import IidScores
from cppo_lib.evaluation.significance import holm, minimum_detectable_effect

LATTICE = 1e-9  # ends of an interval sit on the lattice of the scores: a tie is a hit


def table(rows: ArrayLike) -> IidScores:
    values = np.atleast_2d(np.asarray(rows, dtype=float))
    return IidScores(pd.DataFrame(values, columns=[f"p{i}" for i in range(values.shape[1])]), k=4)


# --- intervals ----------------------------------------------------------------------------------


def test_interval_agrees_with_scipy_percentile_bootstrap() -> None:
    scores = np.random.default_rng(3).random(60)
    ours = bootstrap_interval(table(scores), resamples=20_000, seed=1)
    theirs = scipy.stats.bootstrap(
        (scores,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.estimate == pytest.approx(scores.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_paired_interval_agrees_with_scipy() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random(50), rng.random(50)
    ours = paired_difference(table(a), table(b), resamples=20_000)
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
    interval = bootstrap_interval(table([1.0] * 30 + [0.0] * 70), resamples=50_000)
    expected = scipy.stats.binom.ppf([0.025, 0.975], 100, 0.3) / 100
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=0.011)


def test_p_value_matches_the_normal_limit() -> None:
    rng = np.random.default_rng(6)
    a = rng.normal(0.13, 1, size=400)
    result = paired_difference(table(a), table([0.0] * 400))
    z = a.mean() / (a.std() / 20)
    assert result.p_value == pytest.approx(2 * scipy.stats.norm.sf(z), rel=0.15)
    assert result.p_one_sided == pytest.approx(scipy.stats.norm.sf(z), rel=0.15)


def test_no_difference_is_never_significant() -> None:
    same = table([1.0, 0.0, 1.0, 0.0])
    result = paired_difference(same, same, resamples=500)
    assert (result.estimate, result.low, result.high) == (0, 0, 0)
    assert (result.p_value, result.p_one_sided, result.second_p) == (1, 1, 1)


def test_pairing_narrows_the_interval() -> None:
    """Problems of very different difficulty: the gap of 0.1 on each is certain only when paired."""
    easy = np.linspace(0, 0.9, 40)
    result = paired_difference(table(easy + 0.1), table(easy), resamples=2_000)
    assert (result.low, result.high) == pytest.approx((0.1, 0.1))
    assert result.p_value < 0.001


def test_columns_are_paired_by_problem_and_not_by_position() -> None:
    a = table([1.0, 0.0, 1.0])
    result = paired_difference(a, a.on(["p2", "p0", "p1"]), resamples=200)
    assert (result.low, result.high) == (0, 0)
    with pytest.raises(ParameterError, match="'p2' has scores of one method only"):
        paired_difference(a, a.on(["p0", "p1"]))


def test_seeds_widen_the_interval() -> None:
    """Between-seed spread shows up: seeds at 0.2 and 0.8 on every problem, nothing between them."""
    rows = [[0.2] * 50, [0.8] * 50]
    interval = bootstrap_interval(table(rows))
    assert interval.estimate == pytest.approx(0.5) and interval.n_seeds == 2
    assert (interval.low, interval.high) == pytest.approx((0.2, 0.8))
    result = paired_difference(table(rows), table([0.5] * 50))
    assert (result.low, result.high) == pytest.approx((-0.3, 0.3))


def test_results_depend_on_the_seed_alone() -> None:
    a, b = table([1.0, 0.0, 1.0, 0.0, 1.0]), table([0.0, 0.0, 1.0, 0.0, 0.0])
    assert paired_difference(a, b, resamples=300) == paired_difference(a, b, resamples=300)
    assert bootstrap_interval(a, seed=1) == bootstrap_interval(a, seed=1)


def test_a_standard_error_gives_the_detectable_effect() -> None:
    rng = np.random.default_rng(7)
    a, b = (rng.random(400) < p for p in (0.6, 0.5))
    gap = paired_difference(table(a), table(b), resamples=20_000)
    sd = (a.astype(float) - b).std()
    assert gap.standard_error == pytest.approx(sd / 20, rel=0.02)
    assert gap.detectable() == pytest.approx(minimum_detectable_effect(sd, 400), rel=0.02)
    assert gap.detectable(alpha=0.05 / 9) > gap.detectable()


def test_binary_scores_get_mcnemar_and_others_the_sign_flip() -> None:
    rows = np.array([[1.0] * 6 + [0.0], [0.0] * 6 + [1.0]])
    result = paired_difference(table(rows[0]), table(rows[1]), resamples=200)
    assert result.second_test == "McNemar" and result.second_p == pytest.approx(16 / 128)
    halves = paired_difference(table(rows[0] / 2), table(rows[1] / 2), resamples=200)
    assert halves.second_test == "sign flip" and halves.second_p == pytest.approx(16 / 128)


def test_disagreement_of_the_two_tests_shows() -> None:
    """Five problems gained, none lost: no resample lacks a gain by much, yet 2 / 2^5 is above 0.05."""
    gap = paired_difference(table([1.0] * 5 + [0.0] * 15), table([0.0] * 20), resamples=20_000)
    assert gap.p_value < 0.05 < gap.second_p == 2 / 2**5
    assert not gap.tests_agree() and gap.tests_agree(alpha=0.1)


# --- the engine ---------------------------------------------------------------------------------


def test_patterns_are_drawn_with_the_distribution_of_problems() -> None:
    """0/1 scores of two methods with two seeds each: drawing patterns and drawing problems agree."""
    rng = np.random.default_rng(0)
    tables = [(rng.random((2, 800)) < p).astype(float) for p in (0.6, 0.5)]
    drawn = [
        resampled_means(tables, resamples=40_000, rng=np.random.default_rng(seed), merge=merge)
        for seed, merge in ((1, True), (2, False))
    ]
    for ours, theirs in zip(drawn[0].T, drawn[1].T, strict=True):
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > 0.01
    gaps = [means[:, 0] - means[:, 1] for means in drawn]
    assert gaps[0].std() == pytest.approx(gaps[1].std(), rel=0.02)
    assert not np.array_equal(*drawn)  # the two ways are really taken


def test_resamples_are_means_of_problems_drawn_for_all_tables_at_once() -> None:
    """Scores that name their problem: each resample must be the mean of one and the same draw."""
    powers = 5 ** np.arange(4)
    means = resampled_means([powers[None], 10 * powers[None]], resamples=3_000, rng=np.random.default_rng(0))
    assert means[:, 1] == pytest.approx(10 * means[:, 0])
    drawn = np.round(4 * means[:, 0]).astype(int)[:, None] // powers % 5  # digits: how often each problem came
    assert (drawn.sum(axis=1) == 4).all()
    assert len(np.unique(drawn, axis=0)) == 35  # all ways to draw four of four with replacement


def test_memory_does_not_grow_with_resamples_and_problems() -> None:
    """Three methods, two seeds, 20 000 problems with a score each of its own: below 200 MB."""
    tables = [np.random.default_rng(i).random((2, 20_000)) for i in range(3)]
    tracemalloc.start()
    resampled_means(tables, resamples=2_500, rng=np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


# --- coverage, by simulation --------------------------------------------------------------------


def outcomes(n_problems: int, gained: float, lost: float, draws: int = 4_000) -> tuple[np.ndarray, np.ndarray]:
    """Simulated (gained, lost) counts of paired 0/1 scores: the different ones and how often each came."""
    rng = np.random.default_rng(n_problems)
    counts = rng.multinomial(n_problems, [gained, lost, 1 - gained - lost], size=draws)[:, :2]
    return np.unique(counts, axis=0, return_counts=True)


def compared(n_problems: int, gained: int, lost: int, resamples: int) -> Difference:
    """Two methods that each solve problems which the other does not."""
    a, b = np.zeros(n_problems), np.zeros(n_problems)
    a[:gained], b[gained : gained + lost] = 1, 1
    return paired_difference(table(a), table(b), resamples=resamples)


@pytest.mark.parametrize("n_problems", [131, 500])
@pytest.mark.parametrize(("gained", "lost"), [(0.10, 0.10), (0.20, 0.04), (0.03, 0.03)])
def test_paired_intervals_cover_at_their_level(n_problems: int, gained: float, lost: float) -> None:
    cells, times = outcomes(n_problems, gained, lost)
    results = [compared(n_problems, int(a), int(b), resamples=2_000) for a, b in cells]
    hit = [gap.low - LATTICE <= gained - lost <= gap.high + LATTICE for gap in results]
    assert 0.93 <= np.average(hit, weights=times) <= 0.97
    if gained == lost:
        wrong = np.average([gap.p_value < 0.05 for gap in results], weights=times)
        assert 0.025 <= wrong <= 0.06


def test_holm_keeps_the_family_wise_error_of_nine_cells() -> None:
    """Nine cells without an effect: some raw p-value is below 0.05 in a third of the tables, or more."""
    cells, times = outcomes(131, 0.10, 0.10)
    p = np.array([compared(131, int(a), int(b), resamples=20_000).p_value for a, b in cells])
    rng = np.random.default_rng(0)
    tables = p[rng.choice(len(p), size=(4_000, 9), p=times / times.sum())]
    assert (tables.min(axis=1) < 0.05).mean() > 0.3
    assert np.mean([min(holm(list(row))) < 0.05 for row in tables]) < 0.06


def test_seeds_are_part_of_what_the_interval_covers() -> None:
    """Five training seeds 0.6 apart in the logit, problems 1: problems alone miss the truth, 0.5, far too often."""
    rng, hits = np.random.default_rng(0), []
    for repeat in range(300):
        logits = rng.normal(size=131) + rng.normal(0, 0.6, size=(5, 1)) + rng.normal(0, 0.5, size=(5, 131))
        scores = pd.DataFrame(rng.binomial(4, scipy.special.expit(logits)) / 4)
        both = (scores, scores.mean().to_frame().T)
        ends = [bootstrap_interval(rows, resamples=1_000, seed=repeat) for rows in both]
        hits.append([interval.low <= 0.5 <= interval.high for interval in ends])
    with_seeds, problems_only = np.mean(hits, axis=0)
    assert 0.87 <= with_seeds <= 0.97
    assert problems_only < 0.65
