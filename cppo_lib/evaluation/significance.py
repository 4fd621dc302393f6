"""Exact tests, many tests at once, and the smallest effect that a design can find.

    mcnemar                      paired 0/1 scores, exact binomial (McNemar 1947)
    sign_flip                    paired scores of any kind, permutation of signs (Fisher 1935)
    holm                         family-wise error over the cells of a table (Holm 1979)
    significance_summary         "significant in m of n cells", raw and adjusted
    minimum_detectable_effect    power of a paired comparison (Miller 2024, 2411.00640, section 5)

Nothing here knows what a score estimates: `cppo_lib.evaluation.estimators` keeps the estimands apart, and
`cppo_lib.evaluation.bootstrap` has the p-values that the tables print first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from cppo_lib.errors import ParameterError

FLIPS = 10_000
BATCH = 2_000  # sign patterns drawn at once
ROUNDING = 1e-12  # mean scores sit on a lattice: ties must count as ties


# --- exact tests --------------------------------------------------------------------------------


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Exact two-sided McNemar p-value of paired 0/1 scores, one per problem.

    Of the problems that exactly one of the two solves, the number that `a` solves is
    Binomial(their number, 1/2) if neither is better.

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


def sign_flip(differences: ArrayLike, *, resamples: int = FLIPS, seed: int = 0) -> float:
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
        batch=BATCH,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


# --- many tests ---------------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given: reject where the result is below alpha.

    The i-th smallest of n p-values times (n - i + 1), made monotone. With alpha = 0.05 the chance
    of any false rejection in the table is at most 5 %, however the cells depend on each other.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    return [float(value) for value in adjusted]


@dataclass(frozen=True)
class SignificanceSummary:
    """In how many cells of a table a difference is significant, with and without adjustment."""

    cells: int
    raw: int
    adjusted: int
    alpha: float
    direction: str

    def __str__(self) -> str:
        head = f"{self.direction} in {self.raw} of {self.cells} cells at p < {self.alpha:g}"
        return f"{head}, in {self.adjusted} of {self.cells} after Holm's adjustment"


def significance_summary(
    p_values: Sequence[float], alpha: float = 0.05, *, differences: Sequence[float] | None = None
) -> SignificanceSummary:
    """Count the significant cells of a table, at the raw p-values and after Holm's adjustment.

    The adjusted count is also a lower bound for the number of cells with an effect, wrong with
    probability at most alpha: the partial-conjunction count of Dror et al. 2017 (1709.09500) with
    Bonferroni's combination is the number of Holm's rejections.

    Args:
        p_values: two-sided, one per cell.
        differences: the cells' estimates. If given, only cells above 0 are counted, so that a
            method is not credited with cells where it is significantly worse.

    Raises:
        ParameterError: p-values outside 0..1, or not one difference per cell.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ParameterError(f"p-values lie between 0 and 1, got {p_values}")
    counted, direction = np.ones(len(p), dtype=bool), "significantly different"
    if differences is not None:
        if len(differences) != len(p):
            raise ParameterError(f"{len(p)} p-values need as many differences, got {len(differences)}")
        counted, direction = np.asarray(differences) > 0, "significantly higher"
    raw = int((counted & (p < alpha)).sum())
    adjusted = int((counted & (np.asarray(holm(p_values)) < alpha)).sum())
    return SignificanceSummary(len(p), raw, adjusted, alpha, direction)


# --- power --------------------------------------------------------------------------------------


def minimum_detectable_effect(
    sd: float,
    n_problems: int,
    *,
    seed_sd: float = 0.0,
    n_seeds: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """The smallest true difference that a two-sided paired test finds with probability `power`.

        (z_{1-alpha/2} + z_power) * sqrt(sd^2 / problems + seed_sd^2 / seeds)

    A normal approximation, as good as the bootstrap's own; with few seeds it is optimistic, as
    `seed_sd` is then hardly known.

    Args:
        sd: standard deviation over problems of the paired difference (of its mean over seeds). Of
            0/1 scores it is sqrt(discordant - difference^2), about the root of the share of
            problems that exactly one of the two methods solves.
        seed_sd: standard deviation over seeds of the mean difference: for two methods with seeds
            of their own, the root of the sum of their variances.
        alpha: for the first of n cells under Holm, 0.05 / n.

    Raises:
        ParameterError: a size below 1, a negative deviation, or a probability outside 0..1.
    """
    if n_problems < 1 or n_seeds < 1 or sd < 0 or seed_sd < 0:
        raise ParameterError("minimum detectable effect: needs problems and seeds, and deviations of 0 or more")
    return detectable(math.sqrt(sd**2 / n_problems + seed_sd**2 / n_seeds), alpha=alpha, power=power)


def detectable(standard_error: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference found with probability `power`, from its standard error.

    Raises:
        ParameterError: alpha or power outside 0..1.
    """
    if not (0 < alpha < 1 and 0 < power < 1):
        raise ParameterError(f"alpha and power lie between 0 and 1, got {alpha} and {power}")
    return float((scipy.stats.norm.isf(alpha / 2) + scipy.stats.norm.ppf(power)) * standard_error)
