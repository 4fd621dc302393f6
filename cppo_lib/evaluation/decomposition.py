"""How much of pass@K is the skill of single attempts, and how much is coordination?

The coordination decomposition (ours; the paper's abstract has none) needs verdicts and nothing else. With p_k the
success rate of slot k on a problem and p their mean,

    pass@K = [1 - (1-p)^K]                                  skill: better attempts
           + [(1-p)^K - prod_k (1-p_k)]                     heterogeneity: slots differ on purpose
           + [prod_k (1-p_k) - P(all fail)]                 correlation: failures avoid each other

The sum telescopes, so the terms add up to pass@K on every problem, as estimated by `estimators.score_table`.

Departure from the plug-in form: products of estimated rates are biased with few tuples, so each product is averaged
over choices of K *different* tuples, which is unbiased and needs T >= K. The heterogeneity term is never negative in
expectation, but its estimate can be.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.estimators import KEY, Floats, check_attempts, score_table, tuple_pass_at_k

TERMS = ("skill", "heterogeneity", "correlation")


def _mean_product(failures: Floats) -> Floats:
    """Mean over choices of K different tuples t_1..t_K of prod_k failures[t_k, k]; (..., T, K).

    Tuples are taken one by one; `partial[slots]` sums the products in which these slots are filled.
    """
    tuples, size = failures.shape[-2:]
    partial = {frozenset[int](): np.ones(failures.shape[:-2])}
    for t in range(tuples):
        grown = dict(partial)
        for slots, value in partial.items():
            for k in set(range(size)) - slots:
                filled = slots | {k}
                grown[filled] = grown.get(filled, 0.0) + value * failures[..., t, k]
        partial = grown
    choices = float(np.prod(np.arange(tuples, tuples - size, -1, dtype=np.float64)))
    return np.asarray(partial[frozenset(range(size))] / choices, dtype=np.float64)


def decompose(passed: ArrayLike) -> dict[str, Floats]:
    """The three terms for coordinated tuples of verdicts (..., T, K); each of shape (...).

    They sum to `observed`, the share of tuples in which any attempt passed.

    Raises:
        ParameterError: fewer than K tuples per problem.
    """
    verdicts = np.asarray(passed, dtype=np.float64)
    tuples, size = verdicts.shape[-2:]
    if tuples < size:
        raise ParameterError(
            f"the decomposition needs at least K={size} tuples per problem, got {tuples}: "
            "raise `tuples` in 04_evaluation"
        )
    fails = 1.0 - verdicts
    slot_means = np.broadcast_to(fails.mean(axis=-1, keepdims=True), fails.shape)
    alike, apart = _mean_product(slot_means), _mean_product(fails)
    observed = tuple_pass_at_k(verdicts)
    return {
        "skill": 1.0 - alike,
        "heterogeneity": alike - apart,
        "correlation": apart - (1.0 - observed),
        "observed": observed,
    }


def decomposition(attempts: pd.DataFrame) -> pd.DataFrame:
    """The terms for one method: index (seed, problem_id), columns `TERMS` and `observed`.

    `decomposition(attempts)[term].unstack("problem_id")` is a table that `bootstrap.bootstrap_interval` takes.

    I.i.d. attempts have neither slots nor tuples: all of their pass@K is skill, by definition.

    Raises:
        ParameterError: records that do not fit (`estimators.check_attempts`), problems with different
            numbers of tuples, or fewer than K of them.
    """
    size = check_attempts(attempts)
    if not bool(attempts["coordinated"].iloc[0]):
        scores = score_table(attempts).stack()
        terms = {"skill": scores, "heterogeneity": 0.0, "correlation": 0.0, "observed": scores}
        return pd.DataFrame(terms)
    rows = attempts.sort_values(KEY)
    per_problem = rows.groupby(KEY[:2]).size()
    if per_problem.nunique() != 1:
        raise ParameterError("the decomposition needs the same number of tuples on every problem")
    verdicts = rows["passed"].to_numpy(dtype=bool).reshape(len(per_problem), -1, size)
    return pd.DataFrame(decompose(verdicts), index=per_problem.index)
