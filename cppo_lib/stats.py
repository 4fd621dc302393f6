"""pass@k and its uncertainty: two estimands kept apart, paired bootstrap, exact tests, Holm.

Attempts that are independent draws of one distribution are exchangeable, and from n >= k of them

    pass@k = 1 - C(n-c, k) / C(n, k)                       (Chen et al. 2021, 2107.03374)

is unbiased. The K attempts of a coordinated tuple are not exchangeable: its pass@K is the indicator
"any of the K passed", averaged over tuples, and attempts of different tuples are never pooled. Each
record says which of the two it is (`coordinated`), and `pass_at_k` refuses a mixture.

The unit of resampling is the problem, paired across methods; with several seeds, seeds are
resampled as well (each method's own), so that the interval covers training and sampling noise.
Intervals are percentile intervals: on the lattice of 0/1 scores the bias correction of BCa is
unstable, and its intervals come out too short when few problems differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from cppo_lib.errors import ParameterError

Floats = NDArray[np.float64]

KEY = ["seed", "problem_id", "tuple_index", "slot"]
INTERVAL_RESAMPLES = 10_000
P_RESAMPLES = 100_000  # at p = 0.005 the Monte-Carlo error is 0.0002, of 10 000 it is 0.0007
CHUNK = 2_000  # resamples drawn at once, so that memory does not grow with their number
ROUNDING = 1e-12  # bootstrap means sit on a lattice: ties must count as ties


# --- pass@k -------------------------------------------------------------------------------------


def iid_pass_at_k(successes: ArrayLike, samples: ArrayLike, *, k: int) -> Floats:
    """Unbiased pass@k from c successes among n exchangeable attempts; arrays of counts, broadcast.

    Raises:
        ParameterError: fewer than k samples, or counts that make no sense.
    """
    c, n = np.broadcast_arrays(np.asarray(successes), np.asarray(samples))
    if k < 1 or (n < k).any() or (c < 0).any() or (c > n).any():
        raise ParameterError(f"pass@{k} needs 0 <= successes <= samples and at least {k} samples")
    failing = scipy.special.comb(n - c, k) / scipy.special.comb(n, k)
    return np.asarray(1.0 - failing, dtype=np.float64)


def tuple_pass_at_k(passed: ArrayLike, *, k: int | None = None) -> Floats:
    """pass@k of coordinated tuples: mean over tuples of "any attempt passed".

    Args:
        passed: (..., T, K), verdicts of T tuples of K attempts each.
        k: at most K, by default K. For less, the mean over all choices of k attempts of the *same*
            tuple: what a reader who can check only k of its programs gets.

    Returns:
        (...), one score per problem.
    """
    verdicts = np.asarray(passed, dtype=bool)
    if verdicts.ndim < 2:
        raise ParameterError("tuple_pass_at_k needs verdicts of shape (..., tuples, attempts)")
    size = verdicts.shape[-1]
    per_tuple = iid_pass_at_k(verdicts.sum(axis=-1), size, k=size if k is None else k)
    return np.asarray(per_tuple.mean(axis=-1), dtype=np.float64)


def score_table(attempts: pd.DataFrame, *, k: int | None = None) -> pd.DataFrame:
    """Score of one method on each problem: rows are seeds, columns are problems, values pass@k.

    Args:
        attempts: attempt records of one method on one benchmark and split.
        k: by default the records' own `k`.

    Raises:
        ParameterError: no records, several methods, i.i.d. and coordinated records together, a
            record twice, an incomplete tuple, or a problem that some seed lacks.
    """
    size = check_attempts(attempts)
    k = size if k is None else k
    if bool(attempts["coordinated"].iloc[0]):
        verdicts = attempts.sort_values(KEY)["passed"].to_numpy(dtype=bool).reshape(-1, 1, size)
        tuples = attempts.sort_values(KEY)[KEY[:3]].iloc[::size]
        scores = tuples.assign(score=tuple_pass_at_k(verdicts, k=k))
        per_problem = scores.groupby(KEY[:2])["score"].mean()
    else:
        counts = attempts.groupby(KEY[:2])["passed"].agg(["sum", "count"])
        per_problem = pd.Series(iid_pass_at_k(counts["sum"], counts["count"], k=k), index=counts.index, name="score")
    table = per_problem.unstack("problem_id")
    if table.isna().to_numpy().any():
        gap = str(table.columns[table.isna().any()][0])
        raise ParameterError(f"problem {gap!r} is missing for some seed: finish 04_evaluation")
    return table


def pass_at_k(attempts: pd.DataFrame, *, k: int | None = None) -> float:
    """pass@k of one method, averaged over problems and seeds; see `score_table`."""
    return float(score_table(attempts, k=k).to_numpy().mean())


def check_attempts(attempts: pd.DataFrame) -> int:
    """Check that records are one method's, complete and of one kind; return their K.

    Raises:
        ParameterError: see `score_table`.
    """
    if attempts.empty:
        raise ParameterError("no attempt records: run notebooks/04_evaluation.ipynb first")
    for column in ("benchmark", "split", "method", "k"):
        if attempts[column].nunique() != 1:
            found = ", ".join(str(value) for value in attempts[column].unique())
            raise ParameterError(f"attempt records mix several values of {column}: {found}")
    method, size = str(attempts["method"].iloc[0]), int(attempts["k"].iloc[0])
    if attempts["coordinated"].nunique() != 1:
        raise ParameterError(f"attempt records of {method} mix coordinated tuples with i.i.d. attempts")
    if attempts.duplicated(KEY).any():
        raise ParameterError(f"attempt records of {method} hold the same attempt twice")
    if (attempts.groupby(KEY[:3])["slot"].count() != size).any():
        raise ParameterError(f"attempt records of {method} hold tuples without {size} attempts")
    return size


# --- intervals ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A mean over problems and seeds with its percentile bootstrap interval."""

    estimate: float
    low: float
    high: float
    level: float
    n_problems: int
    n_seeds: int


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference; `p_value` is two-sided, `p_one_sided` is for "not greater than 0".

    `second_p` is an exact test on the same scores: McNemar where they are 0 or 1, else a paired
    sign-flip permutation test; `second_test` says which. It ignores the variance between seeds.
    """

    p_value: float
    p_one_sided: float
    second_test: str
    second_p: float


def bootstrap_interval(
    table: pd.DataFrame, *, resamples: int = INTERVAL_RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval for the mean of a score table (seeds x problems), resampling problems and seeds."""
    scores = _scores(table)
    draws = np.concatenate(
        [
            _resampled(scores, picks, rng)
            for picks, rng in _picks(scores.shape[1], resamples, np.random.default_rng(seed))
        ]
    )
    return Interval(float(scores.mean()), *_limits(draws, level), level, *scores.shape[::-1])


def paired_difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    resamples: int = P_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Mean of `a` minus mean of `b` on the same problems, with interval and p-values.

    Problems are drawn once for both methods; seeds, which pair nothing, for each method apart.
    The two-sided p-value is (1 + #{|d* - d| >= |d|}) / (resamples + 1), the bootstrap distribution
    shifted to the null; the one-sided is the share of d* <= 0, counted the same way.

    Raises:
        ParameterError: the two tables are not about the same problems.
    """
    if set(a.columns) != set(b.columns):
        odd = sorted(set(a.columns) ^ set(b.columns))[0]
        raise ParameterError(f"paired difference: problem {odd!r} has scores of one method only")
    left, right = _scores(a), _scores(b[a.columns])
    draws = np.concatenate(
        [
            _resampled(left, picks, rng) - _resampled(right, picks, rng)
            for picks, rng in _picks(left.shape[1], resamples, np.random.default_rng(seed))
        ]
    )
    gap = float(left.mean() - right.mean())
    per_problem = left.mean(axis=0) - right.mean(axis=0)
    binary = all(len(x) == 1 and np.isin(x, (0.0, 1.0)).all() for x in (left, right))
    second = mcnemar(left[0], right[0]) if binary else sign_flip(per_problem, seed=seed)
    return Difference(
        gap,
        *_limits(draws, level),
        level,
        left.shape[1],
        min(len(left), len(right)),
        p_value=_share(np.abs(draws - gap) >= abs(gap) - ROUNDING),
        p_one_sided=_share(draws <= ROUNDING),
        second_test="McNemar" if binary else "sign flip",
        second_p=second,
    )


def _scores(table: pd.DataFrame) -> Floats:
    return np.atleast_2d(table.to_numpy(dtype=np.float64))


def _picks(
    n_problems: int, resamples: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], np.random.Generator]]:
    """Chunks of problem draws (chunk, n_problems), with the generator to draw seeds from."""
    for done in range(0, resamples, CHUNK):
        size = (min(CHUNK, resamples - done), n_problems)
        yield rng.integers(n_problems, size=size), rng


def _resampled(scores: Floats, picks: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Mean of each resample: seeds drawn here, problems as picked; (chunk,)."""
    n_seeds = len(scores)
    if n_seeds == 1:
        return np.asarray(scores[0][picks].mean(axis=1))
    weights = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=len(picks)) / n_seeds
    return np.asarray(np.take_along_axis(weights @ scores, picks, axis=1).mean(axis=1))


def _limits(draws: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _share(hits: NDArray[np.bool_]) -> float:
    return float((1 + hits.sum()) / (1 + len(hits)))


# --- exact tests and multiplicity ---------------------------------------------------------------


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Exact two-sided McNemar p-value of paired 0/1 scores, one per problem.

    Raises:
        ParameterError: scores other than 0 and 1, or of different lengths.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or not np.isin([left, right], (0.0, 1.0)).all():
        raise ParameterError("McNemar's test needs paired scores of 0 and 1, one per problem")
    gained, lost = int((left > right).sum()), int((left < right).sum())
    if gained + lost == 0:
        return 1.0
    return float(scipy.stats.binomtest(gained, gained + lost).pvalue)


def sign_flip(differences: ArrayLike, *, resamples: int = INTERVAL_RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of "each problem's difference is as likely + as -" (exact up to n = 13)."""
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.abs(values) > ROUNDING]  # a zero keeps its sign: it carries no evidence
    if len(values) < 2:
        return 1.0  # of one difference, both signs are equally far from zero
    test = scipy.stats.permutation_test(
        (values,),
        lambda x, axis: np.round(np.mean(x, axis=axis), 12),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=CHUNK,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given: reject where the result is below alpha."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    return [float(value) for value in adjusted]
