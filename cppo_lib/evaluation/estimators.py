"""pass@k from attempt records: two estimands, and a third as released, kept apart by type.

Attempts that are independent draws of one distribution are exchangeable, and from n >= k of them

    pass@k = 1 - C(n-c, k) / C(n, k)                       (Chen et al. 2021, 2107.03374)

is unbiased. The K attempts of a coordinated tuple are not exchangeable: its pass@K is the indicator
"any of the K passed", averaged over tuples, and attempts of different tuples are never pooled. Each
record says which of the two it is (`coordinated`); `score_table` refuses a mixture and returns
`IidScores` or `TupleScores`. `cppo_lib.evaluation.bootstrap` compares score tables of one estimand only, and
two of them by a function of its own; `cppo_lib.evaluation.significance` has exact tests, Holm and power.

The authors' code (Li et al. 2026, at 2f8eb863) scores k > K otherwise: it pools the attempts of ceil(k / K) tuples or
more and puts them into the estimator above. That is pass@k of no procedure: it would be unbiased only if attempts of
one tuple were as independent as those of two. To reproduce the published ladder it is here under a type of its own,
`PooledScores`, which is compared with neither of the two.

For k < K a tuple has two readings, and every score says which one it is: the mean over all choices
of k of its attempts (whoever runs k of them picks blindly), or its first k (whoever runs them in the
planner's order). They agree at k = K.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import pandas as pd
import scipy.special
from numpy.typing import ArrayLike, NDArray

from cppo_lib.errors import ParameterError

Floats = NDArray[np.float64]

KEY = ["seed", "problem_id", "tuple_index", "slot"]
LADDER = (1, 2, 4, 8, 16, 32)
"""The k of the released ladder."""


# --- estimators ---------------------------------------------------------------------------------


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


def tuple_pass_at_k(passed: ArrayLike, *, k: int | None = None, prefix: bool = False) -> Floats:
    """pass@k of coordinated tuples: mean over tuples of "any attempt passed".

    Args:
        passed: (..., T, K), verdicts of T tuples of K attempts each, in the order of the slots.
        k: at most K, by default K.
        prefix: what to take for k < K. False: the mean over all choices of k attempts of the *same*
            tuple. True: its first k attempts.

    Returns:
        (...), one score per problem.

    Raises:
        ParameterError: verdicts of fewer than two dimensions, or k outside 1..K.
    """
    verdicts = np.asarray(passed, dtype=bool)
    if verdicts.ndim < 2:
        raise ParameterError("tuple_pass_at_k needs verdicts of shape (..., tuples, attempts)")
    size = verdicts.shape[-1]
    k = size if k is None else k
    if prefix and 1 <= k < size:
        verdicts, size = verdicts[..., :k], k
    per_tuple = iid_pass_at_k(verdicts.sum(axis=-1), size, k=k)
    return np.asarray(per_tuple.mean(axis=-1), dtype=np.float64)


def pooled_pass_at_k(pools: ArrayLike, k: int) -> float:
    """The released pass@k: the i.i.d. estimator on the pooled attempts of several tuples, a mean over problems.

    Args:
        pools: (problems, 2), attempts and successes on each problem.

    Raises:
        ParameterError: a pool of fewer than k attempts, or counts that make no sense.
    """
    attempts, successes = np.asarray(pools).reshape(-1, 2).T
    return float(iid_pass_at_k(successes, attempts, k=k).mean())


# --- scores with an estimand --------------------------------------------------------------------


class Scores(pd.DataFrame):
    """pass@k of one method on each problem: rows are seeds, columns are problems.

    Always one of the subclasses. What is computed from scores (a slice, a difference, a
    concatenation) is a plain DataFrame and no longer counts as scores; `on` picks problems and
    keeps the type.
    """

    _metadata = ["k"]
    kind: ClassVar[str]

    def __init__(self, table: pd.DataFrame, *, k: int) -> None:
        super().__init__(table)  # type: ignore[call-arg]  # the stubs type __new__ only
        self.k = k

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def estimand(self) -> str:
        """What a score estimates, in words; scores can be paired if theirs is the same."""
        return f"pass@{self.k} of {self.kind}"

    def on(self, problems: Sequence[str]) -> Self:
        """The scores on some of the problems, in the order given."""
        return type(self)(self[list(problems)], **{name: getattr(self, name) for name in self._metadata})

    def mean_score(self) -> float:
        """The mean over problems and seeds."""
        return float(self.to_numpy().mean())


class IidScores(Scores):
    """Unbiased pass@k of i.i.d. attempts (`iid_pass_at_k`)."""

    kind = "i.i.d. attempts"


class TupleScores(Scores):
    """pass@k of coordinated tuples (`tuple_pass_at_k`); `prefix`: of their first k attempts."""

    _metadata = ["k", "prefix"]
    kind = "coordinated tuples"

    def __init__(self, table: pd.DataFrame, *, k: int, prefix: bool = False) -> None:
        super().__init__(table, k=k)
        self.prefix = prefix

    @property
    def estimand(self) -> str:
        """What a score estimates, in words."""
        return f"{super().estimand}{', first attempts' if self.prefix else ''}"


class PooledScores(Scores):
    """The released pass@k of pooled attempts (`pooled_pass_at_k`), whether they are independent or not."""

    kind = "the pooled attempts of several tuples, as released"


def pooled_table(attempts: pd.DataFrame, *, k: int) -> PooledScores:
    """The released score of one method on each problem, from all its tuples there; see `pooled_pass_at_k`.

    Raises:
        ParameterError: fewer than k attempts on a problem, or records that do not fit, see `score_table`.
    """
    check_attempts(attempts)
    return PooledScores(_by_counts(attempts, k), k=k)


def score_table(attempts: pd.DataFrame, *, k: int | None = None, prefix: bool = False) -> IidScores | TupleScores:
    """Score of one method on each problem, by the estimand that fits its records.

    Args:
        attempts: attempt records of one method on one benchmark and split.
        k: by default the records' own `k`.
        prefix: how tuples are read for a smaller k, see `tuple_pass_at_k`. The order of i.i.d.
            attempts means nothing: for them all choices of k count either way.

    Raises:
        ParameterError: no records, several methods, i.i.d. and coordinated records together, a
            record twice, an incomplete tuple, or a problem that some seed lacks.
    """
    size = check_attempts(attempts)
    k = size if k is None else k
    if bool(attempts["coordinated"].iloc[0]):
        rows = attempts.sort_values(KEY)
        verdicts = rows["passed"].to_numpy(dtype=bool).reshape(-1, 1, size)
        scores = rows[KEY[:3]].iloc[::size].assign(score=tuple_pass_at_k(verdicts, k=k, prefix=prefix))
        return TupleScores(_wide(scores.groupby(KEY[:2])["score"].mean()), k=k, prefix=prefix and k < size)
    return IidScores(_by_counts(attempts, k), k=k)


def _by_counts(attempts: pd.DataFrame, k: int) -> pd.DataFrame:
    """The i.i.d. estimator on all attempts of each seed on each problem, (seeds, problems)."""
    counts = attempts.groupby(KEY[:2])["passed"].agg(["sum", "count"])
    per_problem = iid_pass_at_k(counts["sum"], counts["count"], k=k)
    return _wide(pd.Series(per_problem, index=counts.index, name="score"))


def _wide(per_problem: pd.Series[float]) -> pd.DataFrame:
    table = per_problem.unstack("problem_id")
    if table.isna().to_numpy().any():
        gap = str(table.columns[table.isna().any()][0])
        raise ParameterError(f"problem {gap!r} is missing for some seed: finish 04_evaluation")
    return table


def pass_at_k(attempts: pd.DataFrame, *, k: int | None = None, prefix: bool = False) -> float:
    """pass@k of one method, averaged over problems and seeds; see `score_table`."""
    return score_table(attempts, k=k, prefix=prefix).mean_score()


def largest_k(attempts: pd.DataFrame) -> int:
    """The largest k that the records of one method can score: K of tuples, else the attempts on a problem.

    Raises:
        ParameterError: see `score_table`.
    """
    size = check_attempts(attempts)
    if bool(attempts["coordinated"].iloc[0]):
        return size
    return int(attempts.groupby(KEY[:2]).size().min())


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
