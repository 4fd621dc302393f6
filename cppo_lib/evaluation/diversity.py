"""How different are the K attempts?

From attempt records alone, no judge model needed. What two attempts have in common is asked on three levels, each a
column of labels (`LEVELS`):

    strategies  the method that was named, equal up to case and punctuation
    methods     the method that the program implements where the benchmark can tell (`program_method`), else the program
    programs    the program, equal up to the names of variables

Everything about a tuple is computed within the tuple; i.i.d. attempts are compared in their blocks of K, so that all
methods are measured at one size. Indices of a problem's pooled attempts (`breadth`) are for i.i.d. attempts estimates
of the same things, and for tuples what their attempts would be without the tuple: distinct-k minus DA@k is the breadth
that coordination adds.

Effective numbers follow Hill (1973): order 0 counts labels, order 1 is exp(entropy), order 2 the inverse of Simpson's
index. Lee et al. (2503.00691) call theirs EA and do not say which it is; we report all three. Similarities are in
`cppo_lib.evaluation.distances`, shared ideas and waste in `cppo_lib.evaluation.ideas`, the split of pass@K in
`cppo_lib.evaluation.decomposition`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.special
from numpy.typing import ArrayLike, NDArray

from cppo_lib.evaluation.distances import mean_distances, program_similarities, text_similarities
from cppo_lib.evaluation.estimators import KEY, Floats, check_attempts, iid_pass_at_k
from cppo_lib.evaluation.ideas import IdeaJudge, same_idea_rate, same_ideas, wasted_attempts
from cppo_lib.evaluation.programs import KERNELS, program_keys
from cppo_lib.rollout.replies import normalise

# --- indices ------------------------------------------------------------------------------------


def expected_distinct(sizes: ArrayLike, samples: ArrayLike, *, k: int) -> Floats:
    """DA@k: expected number of clusters among k of n attempts drawn without replacement (rarefaction).

    Args:
        sizes: (..., C), attempts in each cluster; they may sum to less than `samples` when some attempts belong to no
            cluster.
        samples: (...), all attempts, at least k.

    Returns:
        (...); k = n counts the clusters.
    """
    counts = np.asarray(sizes, dtype=np.int64)
    return np.asarray(iid_pass_at_k(counts, np.asarray(samples)[..., None], k=k).sum(axis=-1), dtype=np.float64)


def hill(sizes: ArrayLike, q: float) -> Floats:
    """Hill number of order q of clusters (..., C) -> (...): their effective number; NaN where all are empty."""
    counts = np.asarray(sizes, dtype=np.float64)
    total = counts.sum(axis=-1, keepdims=True)
    shares = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    terms = scipy.special.entr(shares) if q == 1 else np.where(shares > 0, shares**q, shares)
    total = np.cumsum(terms, axis=-1)[..., -1]  # one by one: empty clusters must not change the last digit
    return np.asarray(np.exp(total) if q == 1 else total ** (1 / (1 - q)), dtype=np.float64)


def vendi(similarity: ArrayLike) -> Floats:
    """Vendi score: exp(entropy of the eigenvalues of S/n), S (..., n, n) with S_ii = 1 -> (...); NaN if S has any."""
    kernel = np.asarray(similarity, dtype=np.float64)
    whole = ~np.isnan(kernel).any(axis=(-2, -1))
    scores = np.full(whole.shape, np.nan)
    values = np.linalg.eigvalsh(kernel[whole] / kernel.shape[-1]).clip(min=1e-15)
    scores[whole] = np.exp(-(values * np.log(values)).sum(axis=-1))
    return scores


# --- levels -------------------------------------------------------------------------------------


def strategy_labels(attempts: pd.DataFrame) -> pd.Series[Any]:
    """The method that each attempt was given, in the form in which two are compared; null where none was named."""
    return attempts["strategy"].map(normalise, na_action="ignore")


def program_labels(attempts: pd.DataFrame) -> pd.Series[Any]:
    """A key of each attempt's program, equal for programs that are the same up to names."""
    return pd.Series(program_keys(attempts["program"]), index=attempts.index, dtype=object)


def clusters(attempts: pd.DataFrame) -> pd.Series[Any]:
    """The cluster of each attempt: its method, or its program where nobody judged methods.

    Where methods are judged, a program that implements none of them belongs to no cluster (null).
    """
    if attempts["program_method"].notna().any():
        return attempts["program_method"]
    return program_labels(attempts)


LEVELS: dict[str, Callable[[pd.DataFrame], pd.Series[Any]]] = {
    "methods": clusters,
    "programs": program_labels,
    "strategies": strategy_labels,
}
"""Labels by level: equal for attempts that are the same, null for attempts that are in no cluster."""


def breadth(attempts: pd.DataFrame, labels: pd.Series[Any]) -> pd.DataFrame:
    """How many different labels the attempts on each problem have.

    Args:
        attempts: the records of one method.
        labels: on the index of `attempts`. `labels.where(attempts["passed"])` counts among successes only.

    Returns:
        Index (seed, problem_id); columns distinct_k (mean over tuples of the labels among K attempts), da_k (expected
        labels among K of the problem's attempts, whatever their tuple), hill_0, hill_1, hill_2 (effective number of
        labels among all attempts on the problem). All null where no attempt has a label.
    """
    size = check_attempts(attempts)
    rows = attempts.assign(label=labels).sort_values(KEY)
    codes = pd.factorize(rows["label"])[0]
    problems = rows.groupby(KEY[:2], sort=True)
    samples = problems.size()
    if (codes < 0).all():
        return pd.DataFrame(np.nan, index=samples.index, columns=["distinct_k", "da_k", "hill_0", "hill_1", "hill_2"])
    per_tuple = pd.Series(_distinct(codes.reshape(-1, size)), index=rows.index[::size])
    sizes = _cluster_sizes(np.asarray(problems.ngroup(), dtype=np.int64), codes)
    return pd.DataFrame(
        {
            "distinct_k": per_tuple.groupby([rows[key].iloc[::size] for key in KEY[:2]]).mean(),
            "da_k": expected_distinct(sizes, samples.to_numpy(), k=size),
            **{f"hill_{q}": hill(sizes, q) for q in (0, 1, 2)},
        },
        index=samples.index,
    )


def _cluster_sizes(owners: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Attempts in each cluster of each problem, (problems, most clusters of any), largest first."""
    known = codes >= 0
    cells, counts = np.unique(owners[known] * (codes.max() + 1) + codes[known], return_counts=True)
    problem = cells // (codes.max() + 1)
    order = np.lexsort((-counts, problem))
    place = np.arange(len(cells)) - np.searchsorted(problem, problem)
    sizes = np.zeros((owners.max() + 1, place.max() + 1), dtype=np.int64)
    sizes[problem, place] = counts[order]
    return sizes


# --- tuples -------------------------------------------------------------------------------------


def tuple_table(attempts: pd.DataFrame, judge: IdeaJudge | None = None) -> pd.DataFrame:
    """One row per tuple (or block of K i.i.d. attempts) of one method.

    Columns: seed, problem_id, tuple_index, passed (any attempt); distinct_methods (clusters), distinct_programs,
    distinct_strategies and duplicate (a method named twice; both null without a planner); valid, followed (share of
    attempts that follow their method; null where not judged); wasted (share of pairs of attempts in one cluster; null
    unless all K failed). Shares of attempts: duplicate_programs (same as an earlier one), wasted_attempts (could not
    add a success). Share of pairs: same_idea. The two are null where nobody judged, see `cppo_lib.evaluation.ideas`.
    Effective numbers by kernel: vendi (subtrees), vendi_ast, vendi_opcodes, vendi_strategies. Mean distances of pairs:
    ast_distance, opcode_distance, strategy_distance. Those of strategies are null unless all K were named.

    Args:
        judge: says whether two programs try the same idea; None takes the methods in the records, if there are any.
    """
    size = check_attempts(attempts)
    rows = attempts.sort_values(KEY)
    blocks = rows.iloc[::size][KEY[:3]].reset_index(drop=True)
    verdicts = rows["passed"].to_numpy(dtype=bool).reshape(-1, size)
    passed = np.asarray(verdicts.any(axis=1))
    codes = {level: _codes(labels(rows), size) for level, labels in LEVELS.items()}
    named = (codes["strategies"] >= 0).sum(axis=1)
    strategies = np.where(named > 0, _distinct(codes["strategies"]), np.nan)
    pairs = (_same_pairs(codes["methods"]) / max(size * (size - 1), 1)).astype(float)
    same = same_ideas(rows, judge)
    programs = rows["program"].to_numpy().reshape(-1, size)
    alike = {kernel: program_similarities(programs, kernel) for kernel in KERNELS}
    told = text_similarities(rows["strategy"].to_numpy(dtype=object).reshape(-1, size))
    return blocks.assign(
        passed=passed,
        distinct_methods=_distinct(codes["methods"]),
        distinct_programs=_distinct(codes["programs"]),
        distinct_strategies=strategies,
        duplicate=np.where(named > 0, (strategies < named).astype(float), np.nan),
        vendi=vendi(alike["subtrees"]),
        valid=_mean(rows["valid"], size),
        followed=_mean(rows["followed"], size),
        wasted=np.where(passed, np.nan, pairs),
        duplicate_programs=1 - _distinct(codes["programs"]) / size,
        same_idea=same_idea_rate(same),
        wasted_attempts=wasted_attempts(same, codes["programs"], verdicts),
        vendi_ast=vendi(alike["ast"]),
        vendi_opcodes=vendi(alike["opcodes"]),
        vendi_strategies=vendi(told),
        ast_distance=mean_distances(alike["ast"]),
        opcode_distance=mean_distances(alike["opcodes"]),
        strategy_distance=mean_distances(told),
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


def _mean(values: pd.Series[Any], size: int) -> Floats:
    """Mean of the K values of each tuple, nulls left out; null where all are."""
    table = values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan).reshape(-1, size)
    return np.asarray(pd.DataFrame(table).mean(axis=1), dtype=np.float64)


def known_share(attempts: pd.DataFrame, column: str) -> float:
    """Mean over tuples of `valid` or `followed`, as in `diversity_summary`; NaN where nothing is known."""
    size = check_attempts(attempts)
    return float(pd.Series(_mean(attempts.sort_values(KEY)[column], size)).mean())


# --- problems and methods -----------------------------------------------------------------------


def problem_table(attempts: pd.DataFrame, judge: IdeaJudge | None = None) -> pd.DataFrame:
    """Everything about one method by problem: index (seed, problem_id).

    Columns: the means over tuples of `tuple_table`'s columns, and for each of `LEVELS` what `breadth` says about the
    pooled attempts: da_methods, hill_0_methods, ... `problem_table(attempts)[column].unstack("problem_id")` is a table
    that `bootstrap.bootstrap_interval` takes; `wasted`, and what nobody judged, has nulls.
    """
    tuples = tuple_table(attempts, judge).drop(columns="tuple_index")
    means = tuples.astype({name: float for name in tuples.columns.difference(KEY)}).groupby(KEY[:2]).mean()
    return means.join(_pooled(attempts))


def _pooled(attempts: pd.DataFrame) -> pd.DataFrame:
    """`breadth` of every level side by side, without distinct_k, which `tuple_table` has."""
    tables = []
    for level, labels in LEVELS.items():
        table = breadth(attempts, labels(attempts)).drop(columns="distinct_k").rename(columns={"da_k": "da"})
        tables.append(table.add_suffix(f"_{level}"))
    return pd.concat(tables, axis=1)


def diversity_summary(attempts: pd.DataFrame, judge: IdeaJudge | None = None) -> dict[str, float]:
    """Means over the tuples of one method, and over its problems for the pooled indices.

    Keys: the columns of `tuple_table`, with `duplicate_rate`, `follow_rate`, `valid_rate`, `waste_rate`,
    `duplicate_program_rate`, `same_idea_rate` and `wasted_attempt_rate` for its shares; `effective_methods`: Hill
    number (q=1) of the clusters of all attempts on a problem; and the pooled columns of `problem_table`. NaN where
    nothing was judged. For i.i.d. attempts `distinct_methods` is DA@K, the same expectation over all K of the n
    attempts.
    """
    check_attempts(attempts)
    summary = tuple_table(attempts, judge).drop(columns=KEY[:3]).astype(float).mean()
    pooled = _pooled(attempts).mean()
    if not bool(attempts["coordinated"].iloc[0]):
        summary["distinct_methods"] = pooled["da_methods"]
    renamed = {name: f"{name}_rate" for name in ("duplicate", "valid", "same_idea")}
    renamed |= {"followed": "follow_rate", "wasted": "waste_rate"}
    renamed |= {"duplicate_programs": "duplicate_program_rate", "wasted_attempts": "wasted_attempt_rate"}
    everything = {**summary.rename(renamed), "effective_methods": pooled["hill_1_methods"], **pooled}
    return {str(name): float(value) for name, value in everything.items()}


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
