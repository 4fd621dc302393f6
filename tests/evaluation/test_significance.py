"""Exact tests by enumeration, Holm by hand, and power against simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.bootstrap import paired_difference
from cppo_lib.evaluation.estimators import IidScores
from cppo_lib.evaluation.significance import (
    holm,
    mcnemar,
    minimum_detectable_effect,
    sign_flip,
    significance_summary,
)

# --- exact tests --------------------------------------------------------------------------------


def test_mcnemar_by_hand() -> None:
    """Eight problems gained, one lost: 2 * (1 + 9) / 2^9."""
    a = [1] * 8 + [0] + [1] * 5
    b = [0] * 8 + [1] + [1] * 5
    assert mcnemar(a, b) == pytest.approx(20 / 512)
    assert mcnemar([1, 0], [1, 0]) == 1.0
    with pytest.raises(ParameterError, match="scores of 0 and 1"):
        mcnemar([0.5], [1])


def test_sign_flip_by_hand() -> None:
    """Three positive differences: 2 of the 2^3 sign patterns are as extreme."""
    assert sign_flip([0.1, 0.2, 0.3]) == pytest.approx(2 / 8)
    assert sign_flip([0.1, 0.2, 0.3, 0.0]) == pytest.approx(2 / 8)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_sign_flip_of_no_or_one_difference_is_no_evidence() -> None:
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([0.0, 0.25, 0.0]) == 1.0
    assert sign_flip([0.25, 0.25]) == 0.5  # ++ and -- of four


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (3, 1), (4, 4), (6, 2), (9, 0)])
def test_mcnemar_is_the_share_of_sign_patterns_as_unlikely(gained: int, lost: int) -> None:
    """All 2^n ways to hand the discordant problems to either method."""
    n = gained + lost
    wins = [bin(pattern).count("1") for pattern in range(2**n)]
    extreme = sum(abs(w - n / 2) >= abs(gained - n / 2) for w in wins)
    a, b = [1] * gained + [0] * lost + [1, 0], [0] * gained + [1] * lost + [1, 0]
    assert mcnemar(a, b) == pytest.approx(extreme / 2**n)


# --- many tests ---------------------------------------------------------------------------------


def test_significant_in_m_of_n_cells() -> None:
    """Holm multiplies by 9, 8, 7, ...: 0.001 and 0.006 stay below 0.05, 0.02 (times 7) does not."""
    p = [0.02, 0.001, 0.3, 0.04, 0.006, 0.03, 0.6, 0.9, 0.2]
    summary = significance_summary(p)
    assert (summary.cells, summary.raw, summary.adjusted) == (9, 5, 2)
    assert str(summary) == ("significantly different in 5 of 9 cells at p < 0.05, in 2 of 9 after Holm's adjustment")
    strict = significance_summary(p, alpha=0.01)
    assert (strict.raw, strict.adjusted) == (2, 1)
    assert str(significance_summary([])).startswith("significantly different in 0 of 0 cells")


def test_cells_that_got_worse_are_no_credit() -> None:
    """Their p-values still count as tests that were made: 0.02 is the third of three, not the second of two."""
    p, gaps = [0.001, 0.001, 0.02, 0.4], [0.1, -0.1, 0.05, 0.2]
    summary = significance_summary(p, differences=gaps)
    assert (summary.raw, summary.adjusted) == (2, 2)
    assert str(summary).startswith("significantly higher in 2 of 4 cells")
    assert significance_summary([0.001, 0.03, 0.03], differences=[-1, 1, 1]).adjusted == 0


def test_the_adjusted_count_is_the_partial_conjunction() -> None:
    """Largest u with max over v <= u of (n - v + 1) p_(v) below alpha."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.beta(0.3, 3, size=9)
        bonferroni = [(9 - v) * value for v, value in enumerate(np.sort(p))]
        u = next((v for v, value in enumerate(bonferroni) if value >= 0.05), 9)
        assert significance_summary(list(p)).adjusted == u


def test_summary_refuses_what_are_no_p_values() -> None:
    with pytest.raises(ParameterError, match="between 0 and 1"):
        significance_summary([0.5, 1.2])
    with pytest.raises(ParameterError, match="between 0 and 1"):
        significance_summary([math.nan])
    with pytest.raises(ParameterError, match="2 p-values need as many differences, got 1"):
        significance_summary([0.5, 0.1], differences=[0.1])


# --- power --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problems", "plain", "first_of_nine"),
    [(131, 9.5, 12.2), (165, 8.4, 10.9), (500, 4.9, 6.3), (1055, 3.3, 4.3), (5000, 1.5, 2.0)],
)
def test_points_detectable_at_fifteen_percent_discordance(problems: int, plain: float, first_of_nine: float) -> None:
    sd = math.sqrt(0.15)
    assert 100 * minimum_detectable_effect(sd, problems) == pytest.approx(plain, abs=0.06)
    adjusted = minimum_detectable_effect(sd, problems, alpha=0.05 / 9)
    assert 100 * adjusted == pytest.approx(first_of_nine, abs=0.06)


def test_the_bootstrap_finds_the_detectable_effect_four_times_in_five() -> None:
    """0/1 scores on 300 problems, 20 % discordant; a third less is found much less often."""
    discordant, n = 0.2, 300
    roughly = minimum_detectable_effect(math.sqrt(discordant), n)
    effect = minimum_detectable_effect(math.sqrt(discordant - roughly**2), n)
    assert found(effect, discordant, n) == pytest.approx(0.8, abs=0.03)
    assert found(effect * 2 / 3, discordant, n) < 0.55


def found(effect: float, discordant: float, n: int) -> float:
    """Share of 2000 simulated comparisons with p < 0.05; outcomes are decided by two counts."""
    gained, lost = (discordant + effect) / 2, (discordant - effect) / 2
    counts = np.random.default_rng(0).multinomial(n, [gained, lost, 1 - gained - lost], size=2_000)
    cells, times = np.unique(counts, axis=0, return_counts=True)
    names, p_values = [str(i) for i in range(n)], []
    for up, down, _ in cells:
        scores = np.zeros((2, n))
        scores[0, :up], scores[1, up : up + down] = 1, 1
        a, b = (IidScores(pd.DataFrame([row], columns=names), k=1) for row in scores)
        p_values.append(paired_difference(a, b, resamples=1_000).p_value)
    return float(np.average(np.array(p_values) < 0.05, weights=times))


def test_seeds_add_to_what_must_be_overcome() -> None:
    """A z-test on means of 4 seeds and 100 problems, at the effect that the formula names."""
    sd, seed_sd = 0.4, 0.06
    effect = minimum_detectable_effect(sd, 100, seed_sd=seed_sd, n_seeds=4)
    rng = np.random.default_rng(0)
    means = effect + rng.normal(0, sd / 10, size=20_000) + rng.normal(0, seed_sd, size=(20_000, 4)).mean(axis=1)
    z = means / math.sqrt(sd**2 / 100 + seed_sd**2 / 4)
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.01)
    assert minimum_detectable_effect(sd, 100) < effect < minimum_detectable_effect(sd, 100, seed_sd=seed_sd)


def test_power_refuses_designs_that_make_no_sense() -> None:
    with pytest.raises(ParameterError, match="needs problems and seeds"):
        minimum_detectable_effect(0.4, 0)
    with pytest.raises(ParameterError, match="alpha and power lie between 0 and 1"):
        minimum_detectable_effect(0.4, 100, power=1.0)
