"""How different are the K attempts, and how much of pass@K does that explain?

From attempt records alone, no judge model needed. Two attempts are in the same cluster if they
implement the same method where the benchmark can tell (`program_method`), else if their programs
are equal up to the names of variables. Everything about a tuple is computed within the tuple;
i.i.d. attempts are compared in their blocks of K, so that all methods are measured at one size.

Coordination decomposition (ours; the paper's abstract has none). With p_k the success rate of slot
k on a problem and p their mean,

    pass@K = [1 - (1-p)^K]                                  skill: better attempts
           + [(1-p)^K - prod_k (1-p_k)]                     heterogeneity: slots differ on purpose
           + [prod_k (1-p_k) - P(all fail)]                 correlation: failures avoid each other

Departure from the plug-in form: products of estimated rates are biased with few tuples, so each
product is averaged over choices of K *different* tuples, which is unbiased and needs T >= K. The
heterogeneity term is never negative in expectation, but its estimate can be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cppo_lib.errors import ParameterError
from cppo_lib.gate import normalise
from cppo_lib.programs import program_key, program_similarity
from cppo_lib.stats import KEY, Floats, check_attempts, iid_pass_at_k, score_table, tuple_pass_at_k

TERMS = ("skill", "heterogeneity", "correlation")


# --- indices ------------------------------------------------------------------------------------


def expected_distinct(sizes: ArrayLike, samples: int, *, k: int) -> float:
    """DA@k: expected number of clusters among k of n attempts drawn without replacement.

    Args:
        sizes: attempts in each cluster; they may sum to less than `samples` when some attempts
            belong to no cluster.
    """
    return float(iid_pass_at_k(np.asarray(sizes, dtype=np.int64), samples, k=k).sum())


def hill(sizes: ArrayLike, q: float) -> float:
    """Hill number of order q: effective number of clusters; q=1 is exp(entropy), q=2 1/Simpson."""
    counts = np.asarray(sizes, dtype=np.float64)
    shares = counts[counts > 0] / counts.sum()
    if q == 1:
        return float(np.exp(-(shares * np.log(shares)).sum()))
    return float((shares**q).sum() ** (1 / (1 - q)))


def vendi(similarity: ArrayLike) -> Floats:
    """Vendi score: exp(entropy of the eigenvalues of S/n), S of shape (..., n, n) with S_ii = 1."""
    kernel = np.asarray(similarity, dtype=np.float64)
    values = np.linalg.eigvalsh(kernel / kernel.shape[-1]).clip(min=1e-15)
    return np.asarray(np.exp(-(values * np.log(values)).sum(axis=-1)), dtype=np.float64)


# --- tuples -------------------------------------------------------------------------------------


def clusters(attempts: pd.DataFrame) -> pd.Series[Any]:
    """The cluster of each attempt: its method, or its program where nobody judged methods.

    Where methods are judged, a program that implements none of them belongs to no cluster (null).
    """
    if attempts["program_method"].notna().any():
        return attempts["program_method"]
    return attempts["program"].map(program_key)


def tuple_table(attempts: pd.DataFrame) -> pd.DataFrame:
    """One row per tuple (or block of K i.i.d. attempts) of one method.

    Columns: seed, problem_id, tuple_index, passed (any attempt), distinct_methods (clusters),
    distinct_programs, distinct_strategies and duplicate (a method named twice; both null without a
    planner), vendi, valid, followed (share of attempts that follow their method; null where not
    judged), wasted (share of pairs of attempts in one cluster; null unless all K failed).
    """
    size = check_attempts(attempts)
    rows = attempts.assign(cluster=clusters(attempts)).sort_values(KEY)
    blocks = rows.iloc[::size][KEY[:3]].reset_index(drop=True)
    verdicts = rows["passed"].to_numpy(dtype=bool).reshape(-1, size)
    passed = np.asarray(verdicts.any(axis=1))
    names = rows["strategy"].map(normalise, na_action="ignore")
    cluster_codes, name_codes = _codes(rows["cluster"], size), _codes(names, size)
    named = (name_codes >= 0).sum(axis=1)
    strategies = np.where(named > 0, _distinct(name_codes), np.nan)
    pairs = (_same_pairs(cluster_codes) / max(size * (size - 1), 1)).astype(float)
    return blocks.assign(
        passed=passed,
        distinct_methods=_distinct(cluster_codes),
        distinct_programs=_distinct(_codes(rows["program"].map(program_key), size)),
        distinct_strategies=strategies,
        duplicate=np.where(named > 0, (strategies < named).astype(float), np.nan),
        vendi=_vendi(rows["program"].to_numpy().reshape(-1, size)),
        valid=_mean(rows["valid"], size),
        followed=_mean(rows["followed"], size),
        wasted=np.where(passed, np.nan, pairs),
    )


def _codes(values: pd.Series[Any], size: int) -> NDArray[np.int64]:
    """Values as numbers, null as -1; (tuples, K)."""
    return np.asarray(pd.factorize(values)[0], dtype=np.int64).reshape(-1, size)


def _distinct(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    ordered = np.sort(codes, axis=1)
    fresh = np.diff(ordered, axis=1, prepend=-1) != 0
    return np.asarray((fresh & (ordered >= 0)).sum(axis=1))


def _same_pairs(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ordered pairs of different attempts in the same cluster."""
    same = (codes[:, :, None] == codes[:, None, :]) & (codes[:, :, None] >= 0)
    return np.asarray(same.sum(axis=(1, 2)) - (codes >= 0).sum(axis=1))


def _vendi(programs: NDArray[np.object_]) -> Floats:
    if len(programs) == 0:
        return np.empty(0)
    return vendi([[[program_similarity(a, b) for b in block] for a in block] for block in programs])


def _mean(values: pd.Series[Any], size: int) -> Floats:
    """Mean of the K values of each tuple, nulls left out; null where all are."""
    table = values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan).reshape(-1, size)
    return np.asarray(pd.DataFrame(table).mean(axis=1), dtype=np.float64)


def diversity_summary(attempts: pd.DataFrame) -> dict[str, float]:
    """Means over the tuples of one method, and over its problems for the pooled indices.

    Keys: the columns of `tuple_table`, with `duplicate_rate`, `follow_rate`, `valid_rate` and
    `waste_rate` for its shares, and `effective_methods`: Hill number (q=1) of the clusters of all
    attempts on a problem. NaN where nothing was judged. For i.i.d. attempts `distinct_methods` is
    DA@K, the same expectation over all K of the n attempts.
    """
    size = check_attempts(attempts)
    tuples = tuple_table(attempts)
    per_problem = attempts.assign(cluster=clusters(attempts)).groupby(KEY[:2])["cluster"]
    sizes = [group.value_counts().to_numpy() for _, group in per_problem]
    summary = tuples.drop(columns=KEY[:3]).astype(float).mean()
    if not bool(attempts["coordinated"].iloc[0]):
        counts = per_problem.size()
        pairs = zip(sizes, counts, strict=True)
        summary["distinct_methods"] = np.mean([expected_distinct(s, n, k=size) for s, n in pairs])
    renamed = {name: f"{name}_rate" for name in ("duplicate", "valid")}
    renamed |= {"followed": "follow_rate", "wasted": "waste_rate"}
    effective = [hill(s, 1) for s in sizes if len(s)]
    pooled = {"effective_methods": float(np.mean(effective)) if effective else float("nan")}
    return {**{str(k): float(v) for k, v in summary.rename(renamed).items()}, **pooled}


def method_coverage(attempts: pd.DataFrame) -> pd.DataFrame:
    """Which methods do tuples try? Share of tuples (or blocks of K) with an attempt at each.

    Returns:
        One row per group of problems and method that any program of it implements; columns group,
        program_method, coverage. Empty where nobody judged methods.
    """
    check_attempts(attempts)
    named = attempts[attempts["program_method"].notna()]
    tuples = attempts.groupby("group")[KEY[:3]].apply(lambda keys: len(keys.drop_duplicates()))
    tried = named.drop_duplicates([*KEY[:3], "program_method"])
    counts = tried.groupby(["group", "program_method"]).size().rename("coverage").reset_index()
    return counts.assign(coverage=counts["coverage"] / counts["group"].map(tuples))


# --- coordination -------------------------------------------------------------------------------


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

    I.i.d. attempts have neither slots nor tuples: all of their pass@K is skill, by definition.

    Raises:
        ParameterError: records that do not fit (`stats.check_attempts`), problems with different
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
