"""Every comparison behind the marks of the main table, and the table of them (S3).

In each cell (`cppo_lib.report.cells`) every method is compared with one that was fixed before any record was read
(`results.BASELINES`), on the same problems, and all comparisons of the table share one adjustment by Holm. What would
be chosen after the fact, the strongest of the other methods, is compared with by `best_of.against_best`, which takes
the choice into account.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from cppo_lib.evaluation.best_of import BestDifference, against_best
from cppo_lib.evaluation.bootstrap import Difference, difference_across_estimands, paired_difference
from cppo_lib.evaluation.significance import holm
from cppo_lib.report import render
from cppo_lib.report.cells import Cell, settings
from cppo_lib.report.render import Table
from cppo_lib.report.results import Results, label

ALPHA = 0.05
TARGET = "cppo"
P_PER_INTERVAL = 10  # p-values need more resamples than intervals do


def draws(results: Results, *, for_p: bool = False) -> dict[str, int]:
    """How the reports draw their intervals, and with more resamples their p-values: arguments for `bootstrap`."""
    resamples = results.params.resamples * (P_PER_INTERVAL if for_p else 1)
    return {"resamples": resamples, "seed": results.params.seed}


def difference(results: Results, a: str, b: str) -> Difference:
    """Paired difference of two methods' pass@K, with the resamples that p-values need.

    The table sets tuples beside i.i.d. attempts on purpose; `difference_across_estimands` says why that is fair.
    """
    if (a, b) not in results.compared:
        left, right = results.scores[a], results.scores[b]
        compare = paired_difference if type(left) is type(right) else difference_across_estimands
        results.compared[a, b] = compare(left, right, **draws(results, for_p=True))
    return results.compared[a, b]


def differences(results: Results) -> dict[str, Difference]:
    """Paired difference of every other method to the baseline; empty without a baseline."""
    base = results.baseline
    return {
        method: difference(results, method, base) for method in results.methods if base is not None and method != base
    }


def best_difference(results: Results) -> BestDifference | None:
    """CPPO against the best of the other methods; None without CPPO or without a baseline beside others."""
    others = {method: scores for method, scores in results.scores.items() if method in results.methods}
    others.pop(TARGET, None)
    base = results.baseline
    if TARGET not in results.methods or base not in others or len(others) < 2:
        return None
    many = draws(results, for_p=True)
    return against_best(results.scores[TARGET], others, fixed=str(base), across_estimands=True, **many)


def detectable(gap: Difference, alpha: float = ALPHA) -> float:
    """The smallest true difference found with 80 % power; NaN where scores that never differ tell nothing about it."""
    return gap.detectable(alpha=alpha) if gap.standard_error > 0 else math.nan


def mark(gap: Difference, adjusted: float) -> str:
    """The mark of a comparison, see the caption of T1."""
    stars = "**" if adjusted < ALPHA else "*" if gap.p_value < ALPHA else ""
    return stars + ("" if gap.tests_agree(ALPHA) else "†")


@dataclass(frozen=True)
class Comparisons:
    """Every comparison of a table: by cell and method, with p-values adjusted over all of them.

    Attributes:
        gaps: by (number of the cell, method).
        adjusted: Holm's adjustment over all of `gaps`.
        best: by number of the cell.
    """

    gaps: Mapping[tuple[int, str], Difference]
    adjusted: Mapping[tuple[int, str], float]
    best: Mapping[int, BestDifference]

    @property
    def first_step(self) -> float:
        """The level that the smallest p-value has to meet."""
        return ALPHA / max(len(self.gaps), 1)


def compare(cells: Sequence[Cell]) -> Comparisons:
    """All comparisons of the main table."""
    gaps = {(n, m): gap for n, cell in enumerate(cells) for m, gap in differences(cell.results).items()}
    adjusted = dict(zip(gaps, holm([gap.p_value for gap in gaps.values()]), strict=True))
    best = {n: best for n, cell in enumerate(cells) if (best := best_difference(cell.results)) is not None}
    return Comparisons(gaps, adjusted, best)


def comparison_table(cells: Sequence[Cell], comparisons: Comparisons) -> Table | None:
    """S3: every comparison of T1 with both tests, one- and two-sided, and the effect that it could have found."""
    rows = [_comparison_row(cells[n], method, comparisons, n) for n, method in comparisons.gaps]
    rows += [_best_row(cells[n], best) for n, best in comparisons.best.items()]
    if not rows:
        return None
    numbers = pd.DataFrame(rows)
    names = [label(name) if name else "best of all others" for name in numbers["against"]]
    shown = pd.DataFrame({"Cell": numbers["cell"], "Method": [label(m) for m in numbers["method"]], "against": names})
    if len(cells) == 1:
        shown = shown.drop(columns="Cell")
    shown["difference"] = render.show(numbers["difference"], render.signed)
    shown["95 % interval"] = render.pairs(numbers, "low", "high", render.signed)
    for name, title in (
        ("p", "p"), ("p_one_sided", "one-sided p"), ("p_holm", "p (Holm)"), ("second_p", "second p"),
    ):  # fmt: skip
        shown[title] = render.show(numbers[name], render.p_value)
    shown["second test"] = numbers["second_test"].fillna("–")
    shown["agree"] = numbers["agree"].map({True: "yes", False: "NO"}).fillna("–")
    shown["found with 80 % power"] = render.show(numbers["detectable"], render.share)
    shown["first by Holm"] = render.show(numbers["detectable_first"], render.share)
    caption = (
        f"{settings(cells)}. Paired differences of pass@{cells[0].results.k}. p: two-sided bootstrap; "
        "one-sided: for a method that is not better. The second test, exact or a permutation of signs, "
        "ignores the variance between seeds. The best of all others is chosen inside the bootstrap. The last columns "
        "are the smallest true difference found with 80 % power at 0.05, and at the level of Holm's first step, "
        f"{comparisons.first_step:.4f}."
    )
    return Table("S3_comparisons", "The comparisons behind the main table", caption, numbers, shown)


def _comparison_row(cell: Cell, method: str, comparisons: Comparisons, number: int) -> dict[str, object]:
    gap = comparisons.gaps[number, method]
    return {
        "cell": cell.title,
        "method": method,
        "against": cell.results.baseline,
        "difference": gap.estimate,
        "low": gap.low,
        "high": gap.high,
        "p": gap.p_value,
        "p_one_sided": gap.p_one_sided,
        "p_holm": comparisons.adjusted[number, method],
        "second_test": gap.second_test,
        "second_p": gap.second_p,
        "agree": gap.tests_agree(ALPHA),
        "detectable": detectable(gap),
        "detectable_first": detectable(gap, comparisons.first_step),
    }


def _best_row(cell: Cell, best: BestDifference) -> dict[str, object]:
    return {
        "cell": cell.title,
        "method": TARGET,
        "against": "",
        "difference": best.estimate,
        "low": best.low,
        "high": best.high,
        "p": best.p_value,
        "p_one_sided": best.p_one_sided,
    }
