"""The difference to the best of several methods: by hand, and its coverage by simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.best_of import against_best
from cppo_lib.evaluation.bootstrap import difference_across_estimands, paired_difference, resampled_means
from cppo_lib.evaluation.estimators import IidScores, Scores, TupleScores

LATTICE = 1e-9  # ends of an interval sit on the lattice of the scores: a tie is a hit


def table(rows: ArrayLike, kind: type[IidScores] | type[TupleScores] = TupleScores, k: int = 4) -> Scores:
    values = np.atleast_2d(np.asarray(rows, dtype=float))
    return kind(pd.DataFrame(values, columns=[f"p{i}" for i in range(values.shape[1])]), k=k)


def methods(n_problems: int, shifts: ArrayLike, seed: int) -> list[Scores]:
    """0/1 scores that share the problems' difficulty; a shift of 0 solves half of them."""
    rng, means = np.random.default_rng(seed), np.asarray(shifts)[:, None]
    solved = rng.normal(size=n_problems) + rng.normal(size=(len(means), n_problems)) + means > 0
    return [table(row) for row in solved]


def test_one_comparator_is_an_ordinary_paired_difference() -> None:
    a, b = methods(200, [0.4, 0], seed=3)
    ours = against_best(a, {"b": b}, fixed="b", resamples=20_000)
    plain = paired_difference(a, b, resamples=20_000)
    assert ours.against_fixed == plain and (ours.best, ours.fixed) == ("b", "b")
    assert ours.estimate == plain.estimate
    assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), abs=0.006)
    assert ours.p_value == pytest.approx(plain.p_value, abs=0.005)


def test_the_best_is_named_and_the_fixed_one_stands_beside_it() -> None:
    target, low, high = methods(300, [1.5, -1, 0.5], seed=4)
    result = against_best(target, {"low": low, "high": high}, fixed="low", resamples=2_000)
    assert (result.best, result.fixed) == ("high", "low")
    assert result.estimate == pytest.approx(target.mean_score() - high.mean_score())
    assert result.against_fixed.estimate == pytest.approx(target.mean_score() - low.mean_score())
    assert 0 < result.low < result.estimate < result.high
    assert result.p_one_sided < 0.01 and result.p_value < 0.02
    assert (result.n_problems, result.n_seeds) == (300, 1)


def test_comparators_that_are_far_below_cost_the_lower_end_nothing() -> None:
    """The claim "above the best" is as strong with hopeless methods in the table as without them."""
    target, rival, *weak = methods(300, [0.7, 0.3, -3, -3, -3], seed=5)
    alone = against_best(target, {"rival": rival}, fixed="rival", resamples=20_000)
    named = {"rival": rival} | {f"weak {i}": scores for i, scores in enumerate(weak)}
    crowd = against_best(target, named, fixed="rival", resamples=20_000)
    assert crowd.low == pytest.approx(alone.low, abs=0.006)
    assert crowd.high >= alone.high - 0.006


def test_choosing_the_best_on_the_data_misses_and_this_does_not() -> None:
    """Nine comparators exactly as good as the target, 0 is the truth.

    The interval to the luckiest alone, and the percentile interval of the minimum inside the
    bootstrap, miss 0 too often; so does the p-value of that pair.
    """
    names, covered, rejected = [f"c{i}" for i in range(9)], [], []
    for repeat in range(250):
        target, *rest = methods(200, [0.0] * 10, seed=repeat)
        comparators = dict(zip(names, rest, strict=True))
        ours = against_best(target, comparators, fixed="c0", resamples=800, seed=repeat)
        naive = paired_difference(target, comparators[ours.best], resamples=800, seed=repeat)
        means = resampled_means(
            [scores.to_numpy() for scores in (target, *rest)], resamples=800, rng=np.random.default_rng(repeat)
        )
        plain = np.quantile((means[:, :1] - means[:, 1:]).min(axis=1), [0.025, 0.975])
        ends = [(ours.low, ours.high), (naive.low, naive.high), plain]
        ends.append((ours.against_fixed.low, ours.against_fixed.high))
        covered.append([low - LATTICE <= 0 <= high + LATTICE for low, high in ends])
        rejected.append([ours.p_value < 0.05, naive.p_value < 0.05])
    honest, naive_share, plain_share, fixed = np.mean(covered, axis=0)
    assert honest >= 0.95 and fixed >= 0.93
    assert naive_share < 0.90 and plain_share < naive_share
    ours_wrong, naive_wrong = np.mean(rejected, axis=0)
    assert ours_wrong <= 0.05 and naive_wrong > 0.08


def test_superiority_is_claimed_at_its_level_where_one_rival_is_as_good() -> None:
    """The least favourable case for "above the best": one equal, the others far below."""
    claims = []
    for repeat in range(250):
        target, equal, *weak = methods(200, [0, 0, -2, -2], seed=repeat)
        named = {"equal": equal} | {f"weak {i}": scores for i, scores in enumerate(weak)}
        claims.append(against_best(target, named, fixed="equal", resamples=800, seed=repeat).p_one_sided < 0.05)
    assert 0.01 <= np.mean(claims) <= 0.08


def test_seeds_are_drawn_here_too() -> None:
    """A target whose two seeds are 0.2 and 0.8 everywhere: its interval spans both."""
    target, other = table([[0.2] * 40, [0.8] * 40]), table([0.5] * 40)
    result = against_best(target, {"other": other}, fixed="other", resamples=2_000)
    assert (result.low, result.high) == pytest.approx((-0.3, 0.3))
    assert result.n_seeds == 1


def test_estimands_are_mixed_on_request_only() -> None:
    target, tuples = methods(50, [0.5, 0], seed=6)
    iid = table(tuples.to_numpy(), IidScores)
    named = {"tuples": tuples, "iid": iid}
    with pytest.raises(ParameterError, match="pass@4 of coordinated tuples against pass@4 of i.i.d. attempts"):
        against_best(target, named, fixed="iid", resamples=200)
    allowed = against_best(target, named, fixed="iid", across_estimands=True, resamples=200)
    assert allowed.against_fixed == difference_across_estimands(target, iid, resamples=200)
    with pytest.raises(ParameterError, match="against pass@2 of i.i.d. attempts: these are different"):
        against_best(target, {"iid": table(iid.to_numpy(), IidScores, k=2)}, fixed="iid", across_estimands=True)
    prefix = TupleScores(pd.DataFrame(tuples), k=4, prefix=True)
    with pytest.raises(ParameterError, match="first attempts: these are different"):
        against_best(target, {"prefix": prefix}, fixed="prefix", across_estimands=True)


def test_what_cannot_be_compared_is_refused() -> None:
    target, other = methods(20, [0, 0], seed=7)
    with pytest.raises(ParameterError, match="'pkpo' is none of the comparators: other"):
        against_best(target, {"other": other}, fixed="pkpo")
    with pytest.raises(ParameterError, match="none of the comparators: none"):
        against_best(target, {}, fixed="pkpo")
    with pytest.raises(ParameterError, match="got DataFrame"):
        against_best(target, {"other": pd.DataFrame(other)}, fixed="other")  # type: ignore[dict-item]
    with pytest.raises(ParameterError, match="has scores of one method only"):
        against_best(target, {"other": other.on([f"p{i}" for i in range(19)])}, fixed="other")
