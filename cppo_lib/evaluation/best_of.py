"""The difference to the best of several methods, when the same data choose the best and judge it.

Of comparators that are close, the luckiest looks best (winner's curse): the difference to it comes
out too low, and the interval of that one pair misses. Two remedies, side by side in one result: a
comparator fixed before the data were seen, or the choice taken inside the bootstrap.

The plain version of the latter, the percentile interval of min_j d*_j, is worse than no remedy: a
resample chooses among noise upon noise, so that its centre is off twice. The resamples are
therefore centred before the choice (White 2000, Econometrica 68, "A reality check for data
snooping").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.bootstrap import (
    P_RESAMPLES,
    Difference,
    Interval,
    aligned,
    difference_across_estimands,
    of_both_kinds,
    paired_difference,
    require_scores,
    resampled_means,
    share,
    values,
)
from cppo_lib.evaluation.estimators import Scores
from cppo_lib.evaluation.significance import ROUNDING


@dataclass(frozen=True)
class BestDifference(Interval):
    """The difference to the best of several comparators, and to one that was fixed in advance.

    `best` is the comparator that is highest on these data; estimate, interval and p-values are
    about whichever is truly highest. `fixed` names the comparator chosen before the data, and
    `against_fixed` is the ordinary paired difference to it.
    """

    best: str
    p_value: float
    p_one_sided: float
    fixed: str
    against_fixed: Difference


def against_best(
    target: Scores,
    comparators: Mapping[str, Scores],
    *,
    fixed: str,
    across_estimands: bool = False,
    resamples: int = P_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> BestDifference:
    """Mean of `target` minus the mean of the best comparator, with an interval that allows for the choice.

    The quantity is theta = min_j delta_j, with delta_j the difference to comparator j, estimated by
    min_j d_j; problems are drawn once for all methods. The interval's ends are

        high  min_j d_j - quantile_{(1-level)/2} of min_j (d*_j - d_j), because min_j d_j - theta is
              never below min_j (d_j - delta_j)
        low   the least of the comparators' own percentile ends: to beat the best is to beat each
              (intersection-union test, Berger 1982, Technometrics 24)

    `p_one_sided` (for "not above the best") is the largest of the comparators' one-sided p-values,
    and `p_value` twice the smaller of that and the share of min_j (d*_j - d_j) <= min_j d_j. The
    interval covers theta at least at its level; its high end is long when most comparators are far
    below the best. For the best of several targets against one baseline, swap the roles and signs.

    Args:
        comparators: by name.
        fixed: the comparator that was chosen before the data were seen.
        across_estimands: allow comparators of the other kind at the same k, for the reason that
            `difference_across_estimands` gives.

    Raises:
        ParameterError: no comparators, `fixed` is none of them, an estimand that does not fit, or
            not the same problems.
    """
    if fixed not in comparators:
        raise ParameterError(f"against_best: {fixed!r} is none of the comparators: {', '.join(comparators) or 'none'}")
    for scores in comparators.values():
        require_scores(target, scores)
        meant = across_estimands and of_both_kinds(scores, target) and scores.k == target.k
        if scores.estimand != target.estimand and not meant:
            raise ParameterError(
                f"against_best: {target.estimand} against {scores.estimand}: these are different quantities; "
                "across_estimands=True allows for i.i.d. attempts against tuples at one k"
            )
    tables = [values(target), *(aligned(target, scores) for scores in comparators.values())]
    gaps = np.array([tables[0].mean() - table.mean() for table in tables[1:]])
    means = resampled_means(tables, resamples=resamples, rng=np.random.default_rng(seed))
    draws = means[:, :1] - means[:, 1:]
    lowest, tail = float(gaps.min()), (1 - level) / 2
    centred = (draws - gaps).min(axis=1)
    above = max(share(column <= ROUNDING) for column in draws.T)
    below = share(centred <= lowest + ROUNDING)
    first = comparators[fixed]
    compare = paired_difference if first.estimand == target.estimand else difference_across_estimands
    return BestDifference(
        lowest,
        float(np.quantile(draws, tail, axis=0).min()),
        lowest - float(np.quantile(centred, tail)),
        level,
        tables[0].shape[1],
        min(len(table) for table in tables),
        best=list(comparators)[int(gaps.argmin())],
        p_value=min(1.0, 2 * min(above, below)),
        p_one_sided=above,
        fixed=fixed,
        against_fixed=compare(target, first, resamples=resamples, level=level, seed=seed),
    )
