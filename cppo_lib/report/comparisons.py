"""Every comparison behind the marks of the main table.

In each column every method is compared with one that was fixed before any record was read (`methods.BASELINES`), on the
same problems, and all comparisons of the table share one adjustment by Holm. What would be chosen after the fact, the
strongest of the other methods, is compared with by `best_of.against_best`, which takes the choice into account.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cppo_lib.evaluation.best_of import BestDifference, against_best
from cppo_lib.evaluation.bootstrap import Difference, difference_across_estimands, paired_difference
from cppo_lib.evaluation.significance import holm
from cppo_lib.report.methods import TARGET, VARIANT, family
from cppo_lib.report.results import Results

ALPHA = 0.05
P_PER_INTERVAL = 10  # p-values need more resamples than intervals do
Key = TypeVar("Key")


def _draws(results: Results) -> dict[str, int]:
    return {"resamples": results.params.resamples * P_PER_INTERVAL, "seed": results.params.seed}


@functools.cache
def difference(results: Results, a: str, b: str) -> Difference:
    """Paired difference of two methods' pass@K, with the resamples that p-values need.

    The table sets tuples beside i.i.d. attempts on purpose; `difference_across_estimands` says why that is fair.
    """
    left, right = results.scores[a], results.scores[b]
    paired = paired_difference if type(left) is type(right) else difference_across_estimands
    return paired(left, right, **_draws(results))


@functools.cache
def best_difference(results: Results) -> BestDifference | None:
    """CPPO against the best method that is no CPPO; None without CPPO or without a baseline beside others."""
    rivals = [method for method in results.methods if method != TARGET and family(method) != VARIANT]
    others = {method: results.scores[method] for method in rivals}
    base = results.baseline
    if TARGET not in results.methods or base not in others or len(others) < 2:
        return None
    return against_best(results.scores[TARGET], others, fixed=str(base), across_estimands=True, **_draws(results))


def by_holm(gaps: Mapping[Key, Difference]) -> dict[Key, float]:
    """The p-values of some differences, adjusted over all of them."""
    return dict(zip(gaps, holm([gap.p_value for gap in gaps.values()]), strict=True))


def detectable(gap: Difference, alpha: float = ALPHA) -> float:
    """The smallest true difference found with 80 % power; NaN where scores that never differ tell nothing about it."""
    return gap.detectable(alpha=alpha) if gap.standard_error > 0 else math.nan


def mark(gap: Difference, adjusted: float) -> str:
    """The mark of a comparison, see the caption of T1."""
    stars = "**" if adjusted < ALPHA else "*" if gap.p_value < ALPHA else ""
    return stars + ("" if gap.tests_agree(ALPHA) else "†")


def row_of(gap: Difference, adjusted: float) -> dict[str, Any]:
    """A comparison as columns of a table."""
    return {
        "difference": gap.estimate,
        "difference_low": gap.low,
        "difference_high": gap.high,
        "p": gap.p_value,
        "p_holm": adjusted,
        "second_test": gap.second_test,
        "second_p": gap.second_p,
        "mark": mark(gap, adjusted),
        "detectable": detectable(gap),
    }


@dataclass(frozen=True)
class Comparisons:
    """Every comparison of the main table: by column and method, with p-values adjusted over all of them.

    Attributes:
        gaps: by (number of the column, method).
        adjusted: Holm's adjustment over all of `gaps`.
        best: by number of the column.
    """

    gaps: Mapping[tuple[int, str], Difference]
    adjusted: Mapping[tuple[int, str], float]
    best: Mapping[int, BestDifference]

    @property
    def first_step(self) -> float:
        """The level that the smallest p-value has to meet."""
        return ALPHA / max(len(self.gaps), 1)


@functools.cache
def comparisons(results: Results) -> Comparisons:
    """All comparisons of the main table."""
    gaps = {
        (number, method): difference(column, method, column.baseline)
        for number, column in enumerate(results.columns)
        for method in column.methods
        if column.baseline not in (None, method)
    }
    found = {number: best_difference(column) for number, column in enumerate(results.columns)}
    return Comparisons(gaps, by_holm(gaps), {number: best for number, best in found.items() if best})
