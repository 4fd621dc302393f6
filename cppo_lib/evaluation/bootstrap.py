"""Paired bootstrap over problems and seeds: intervals of scores, and of their differences.

The unit of resampling is the problem, paired across methods. With several seeds, seeds are drawn as
well, each method's own, so that the interval covers training and sampling noise: a resample draws
seeds and problems apart and averages over their cross (the pigeonhole bootstrap of McCullagh 2000
and Owen 2007, on the safe side for crossed data). Tuples are not drawn again inside a problem: how
much a problem's score depends on its tuples already shows between problems. Few seeds say little
about their spread, and of S the bootstrap sees (S-1)/S of their variance: where seeds differ by 0.6
in the logit and problems by 1, 95 % intervals of 131 problems cover 80 % with three seeds, 90 % with
five, 94 % with ten (and 38 %, 51 % and 61 % if seeds are only averaged).

Intervals are percentile intervals (Efron and Tibshirani 1993, chapter 13): on the lattice of 0/1
scores the bias correction of BCa is unstable, and its intervals come out too short when few
problems differ. 10,000 resamples make an interval, 100,000 a p-value.

Scores of two estimands are never compared by accident: `paired_difference` refuses them,
`difference_across_estimands` says what makes the comparison fair. `cppo_lib.evaluation.best_of` compares with
the best of several methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.estimators import Floats, IidScores, Scores, TupleScores, largest_k, score_table
from cppo_lib.evaluation.significance import ROUNDING, detectable, mcnemar, sign_flip

INTERVAL_RESAMPLES = 10_000
P_RESAMPLES = 100_000  # at p = 0.005 the Monte-Carlo error is 0.0002, of 10 000 it is 0.0007
CHUNK = 2_000  # resamples drawn at once, so that memory does not grow with their number,
CELLS = 5_000_000  # and never more than this many problems in them: 40 MB
BLOCK = 64  # resamples counted at once, so that the counts stay in the cache
MERGE = 25  # problems per pattern of scores from which drawing patterns beats drawing problems


# --- resampling ---------------------------------------------------------------------------------


def resampled_means(
    tables: Sequence[Floats], *, resamples: int, rng: np.random.Generator, merge: bool = True
) -> Floats:
    """Mean of each table in each resample, (resamples, tables).

    Problems are drawn once for all tables, seeds for each table apart. Problems on which all scores
    agree are interchangeable; where there are few such patterns, `merge` draws how often each
    occurs (multinomial) and not the problems one by one: the same distribution, ten times faster.

    Args:
        tables: (seeds, problems) each, about the same problems.
        merge: False draws problems one by one in any case.
    """
    rows = np.concatenate(tables)
    n_problems = rows.shape[1]
    patterns, repeats = np.unique(rows, axis=1, return_counts=True)
    by_pattern = merge and MERGE * len(repeats) <= n_problems
    chunk = min(CHUNK, max(1, CELLS // n_problems))
    means = np.empty((resamples, len(tables)))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        if by_pattern:
            sums = rng.multinomial(n_problems, repeats / n_problems, size=size) @ patterns.T
        else:
            sums = _sums(rows, rng.integers(n_problems, size=(size, n_problems)))
        means[start : start + size] = _over_seeds(sums / n_problems, [len(table) for table in tables], rng)
    return means


def _sums(rows: Floats, picks: NDArray[np.int64]) -> Floats:
    """Sum of each row over the problems picked, (resamples, rows): counts times scores."""
    n_problems, sums = rows.shape[1], np.empty((len(picks), len(rows)))
    for start in range(0, len(picks), BLOCK):
        block = picks[start : start + BLOCK]
        cells = (block + n_problems * np.arange(len(block))[:, None]).ravel()
        counts = np.bincount(cells, minlength=block.size).reshape(block.shape)
        sums[start : start + BLOCK] = counts @ rows.T
    return sums


def _over_seeds(means: Floats, seeds: Sequence[int], rng: np.random.Generator) -> Floats:
    """Mean over the seeds that each resample draws, (resamples, tables); `means` has all rows."""
    out, start = np.empty((len(means), len(seeds))), 0
    for number, n_seeds in enumerate(seeds):
        part = means[:, start : start + n_seeds]
        if n_seeds > 1:
            drawn = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=len(means))
            part = part * drawn / n_seeds
        out[:, number] = part.sum(axis=1)
        start += n_seeds
    return out


# --- one method ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A mean over problems and seeds with its bootstrap interval."""

    estimate: float
    low: float
    high: float
    level: float
    n_problems: int
    n_seeds: int


def bootstrap_interval(
    table: pd.DataFrame, *, resamples: int = INTERVAL_RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval for the mean of a table (seeds x problems): scores, or any other measure."""
    rows = values(table)
    draws = resampled_means([rows], resamples=resamples, rng=np.random.default_rng(seed), merge=False)
    return Interval(float(rows.mean()), *limits(draws[:, 0], level), level, *rows.shape[::-1])


def pass_at_k_curve(
    attempts: pd.DataFrame,
    *,
    ks: Iterable[int] = range(1, 9),
    prefix: bool = False,
    resamples: int = INTERVAL_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> dict[int, Interval]:
    """pass@k of one method for each k, with pointwise intervals.

    Of i.i.d. attempts, the unbiased estimate from all of them, for k up to their number. Of tuples,
    k goes up to K: for k < K the mean over all choices of k attempts of a tuple, or with `prefix`
    its first k. A k beyond the records is left out.

    Raises:
        ParameterError: records that do not fit (`estimators.score_table`).
    """
    most = largest_k(attempts)
    tables = {k: score_table(attempts, k=k, prefix=prefix) for k in ks if k <= most}
    return {k: bootstrap_interval(table, resamples=resamples, level=level, seed=seed) for k, table in tables.items()}


def values(table: pd.DataFrame) -> Floats:
    """The table as an array, (seeds, problems)."""
    return np.atleast_2d(table.to_numpy(dtype=np.float64))


def limits(draws: Floats, level: float) -> tuple[float, float]:
    """The percentile interval of resampled means."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share(hits: NDArray[np.bool_]) -> float:
    """(1 + hits) / (1 + resamples): the resample that is the data themselves counts as a hit."""
    return float((1 + hits.sum()) / (1 + len(hits)))


# --- two methods --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference; `p_value` is two-sided, `p_one_sided` is for "not greater than 0".

    `second_p` is an exact test on the same scores: McNemar where they are 0 or 1, else a paired
    sign-flip permutation test; `second_test` says which. It ignores the variance between seeds.
    `standard_error` is the standard deviation of the resampled differences.
    """

    p_value: float
    p_one_sided: float
    second_test: str
    second_p: float
    standard_error: float

    def detectable(self, *, alpha: float = 0.05, power: float = 0.8) -> float:
        """The minimum detectable effect of this comparison; see `significance.detectable`."""
        return detectable(self.standard_error, alpha=alpha, power=power)

    def tests_agree(self, alpha: float = 0.05) -> bool:
        """Are both tests on the same side of alpha? A mark that rests on one of them is shaky."""
        return (self.p_value < alpha) == (self.second_p < alpha)


def paired_difference(
    a: Scores, b: Scores, *, resamples: int = P_RESAMPLES, level: float = 0.95, seed: int = 0
) -> Difference:
    """Mean of `a` minus mean of `b` on the same problems, with percentile interval and p-values.

    The two-sided p-value is (1 + #{|d* - d| >= |d|}) / (resamples + 1), the bootstrap distribution
    shifted to the null (Davison and Hinkley 1997, section 4.4); the one-sided is the share of
    d* <= 0, counted the same way.

    Raises:
        ParameterError: the two are not scores of one estimand, or not about the same problems.
    """
    require_scores(a, b)
    if a.estimand != b.estimand:
        raise ParameterError(
            f"paired difference between {a.estimand} and {b.estimand}: these are different quantities; "
            "for i.i.d. attempts against tuples at one k, call difference_across_estimands"
        )
    return _difference(a, b, resamples=resamples, level=level, seed=seed)


def difference_across_estimands(
    a: Scores, b: Scores, *, resamples: int = P_RESAMPLES, level: float = 0.95, seed: int = 0
) -> Difference:
    """Like `paired_difference`, between i.i.d. attempts and coordinated tuples, in either order.

    Why this is fair: both scores estimate without bias, problem by problem, the chance that at
    least one of k programs passes when the method is used once as it is meant to be used, and both
    uses are charged k verified programs. A use of an i.i.d. method is any k of its attempts, so
    averaging over choices of k estimates it from all of them; a use of a coordinated method is one
    tuple, so the indicator is averaged over tuples. The two estimates differ in variance alone,
    which the bootstrap carries. It would not be fair to pool the attempts of several tuples, or to
    draw k of the i.i.d. attempts with replacement. Tokens and time are no part of the budget that k
    fixes: the budget table has them. For k < K the tuple was made for another k.

    Raises:
        ParameterError: the two are of one kind, of a third kind (pooled tuples) or of different k, or not about the
            same problems.
    """
    require_scores(a, b)
    if type(a) is type(b):
        raise ParameterError(f"both scores are of {a.kind}: call paired_difference")
    if not of_both_kinds(a, b):
        raise ParameterError(f"difference between {a.estimand} and {b.estimand}: these are different quantities")
    if a.k != b.k:
        raise ParameterError(f"difference across estimands needs one k, got {a.estimand} and {b.estimand}")
    return _difference(a, b, resamples=resamples, level=level, seed=seed)


def of_both_kinds(a: Scores, b: Scores) -> bool:
    """Is one score of i.i.d. attempts and the other of coordinated tuples?"""
    return {type(a), type(b)} == {IidScores, TupleScores}


def require_scores(*tables: object) -> None:
    """Raise ParameterError where a table does not say what it estimates."""
    for table in tables:
        if not isinstance(table, Scores):
            raise ParameterError(
                f"a comparison needs scores that say what they estimate, got {type(table).__name__}: "
                "take them from estimators.score_table"
            )


def aligned(a: Scores, b: Scores) -> Floats:
    """The values of `b` on the problems of `a`. Raises ParameterError where they are not the same problems."""
    if set(a.columns) != set(b.columns):
        odd = sorted(set(a.columns) ^ set(b.columns))[0]
        raise ParameterError(f"paired difference: problem {odd!r} has scores of one method only")
    return values(b[list(a.columns)])


def _difference(a: Scores, b: Scores, *, resamples: int, level: float, seed: int) -> Difference:
    left, right, rng = values(a), aligned(a, b), np.random.default_rng(seed)
    if len(left) == len(right) == 1:
        draws = resampled_means([left - right], resamples=resamples, rng=rng)[:, 0]
    else:
        means = resampled_means([left, right], resamples=resamples, rng=rng)
        draws = means[:, 0] - means[:, 1]
    gap = float(left.mean() - right.mean())
    binary = all(len(x) == 1 and np.isin(x, (0.0, 1.0)).all() for x in (left, right))
    per_problem = left.mean(axis=0) - right.mean(axis=0)
    return Difference(
        gap,
        *limits(draws, level),
        level,
        left.shape[1],
        min(len(left), len(right)),
        p_value=share(np.abs(draws - gap) >= abs(gap) - ROUNDING),
        p_one_sided=share(draws <= ROUNDING),
        second_test="McNemar" if binary else "sign flip",
        second_p=mcnemar(left[0], right[0]) if binary else sign_flip(per_problem, seed=seed),
        standard_error=float(draws.std()),
    )
