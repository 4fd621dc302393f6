"""Advantage rules against exact fixtures, brute force over subsets, and a Monte-Carlo gradient."""

from __future__ import annotations

from fractions import Fraction as F
from itertools import combinations, product

import pytest
import torch

from cppo_lib.errors import ParameterError
from cppo_lib.trainer.advantages import (
    ADVANTAGE_RULES,
    cppo_advantages,
    get_rule,
    row_weights,
    unlikely,
)
from cppo_lib.trainer.pkpo_estimators import leave_one_out, leave_one_out_minus_one, max_at_k, subset_credit

TINY = 1e-12


def vector(values: object) -> torch.Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64)  # type: ignore[attr-defined]


def close(got: torch.Tensor, want: object, tolerance: float = TINY) -> bool:
    return bool(torch.allclose(got, vector(want), rtol=0, atol=tolerance))


GRADED = (F(2, 10), F(9, 10), F(1, 2), F(0))
# rewards, k, rho, s, s^(loo) (None: undefined at k = n), s^(loo-1)
PKPO_FIXTURES = [
    ((1, 0, 0, 1), 2, F(5, 6), (F(1, 2), F(1, 3), F(1, 3), F(1, 2)),
     (F(1, 18), F(-1, 3), F(-1, 3), F(1, 18)), (F(1, 3), 0, 0, F(1, 3))),
    ((1, 0, 0, 0), 2, F(1, 2), (F(1, 2), F(1, 6), F(1, 6), F(1, 6)),
     (F(1, 2), F(-5, 18), F(-5, 18), F(-5, 18)), (F(1, 2), 0, 0, 0)),
    (GRADED, 2, F(13, 20), (F(4, 15), F(9, 20), F(19, 60), F(4, 15)),
     (F(-11, 45), F(11, 60), F(-23, 180), F(-11, 45)), (F(1, 30), F(1, 3), F(2, 15), 0)),
    (GRADED, 3, F(4, 5), (F(23, 40), F(27, 40), F(23, 40), F(23, 40)),
     (F(-13, 40), F(7, 40), F(-13, 40), F(-13, 40)), (0, F(3, 8), F(3, 40), 0)),
    ((1, 0, 1, 0, 0, 0, 0, 0), 4, F(11, 14), (F(1, 2), F(5, 14), F(1, 2)) + (F(5, 14),) * 5,
     (F(17, 98), F(-13, 98), F(17, 98)) + (F(-13, 98),) * 5, (F(2, 7), 0, F(2, 7)) + (0,) * 5),
    ((1, 0, 0, 0), 4, F(1), (1, 1, 1, 1), None, (1, 0, 0, 0)),
    ((1, 1, 0, 0), 4, F(1), (1, 1, 1, 1), None, (0, 0, 0, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("rewards", "k", "rho", "s", "loo", "loo1"), PKPO_FIXTURES)
def test_pkpo_exact_fixtures(rewards, k, rho, s, loo, loo1) -> None:  # type: ignore[no-untyped-def]
    g = vector(rewards)
    assert close(max_at_k(g, k=k).view(1), [rho])
    assert close(subset_credit(g, k=k), s)
    assert close(leave_one_out_minus_one(g, k=k), loo1)
    assert close(ADVANTAGE_RULES["pkpo"](g, k=k), [len(g) * float(value) for value in loo1])
    if loo is None:
        with pytest.raises(ParameterError, match="at least 5 samples"):
            leave_one_out(g, k=k)
    else:
        assert close(leave_one_out(g, k=k), loo)
        assert close(ADVANTAGE_RULES["pkpo_loo"](g, k=k), [len(g) * float(value) for value in loo])


# n=8, c=2, k=4: (advantage of a correct sample, of a wrong one, tolerance)
RULE_FIXTURES = {
    "grpo": (1.6198, -0.5399, 5e-5),
    "grpo_population": (3**0.5, -(3**-0.5), 5e-8),
    "dr_grpo": (0.75, -0.25, TINY),
    "rloo": (6 / 7, -2 / 7, TINY),
    "pass_at_k": (0.52223, -0.17408, 5e-6),
    "pkpo": (16 / 7, 0.0, TINY),
    "pkpo_loo": (8 * 17 / 98, -8 * 13 / 98, TINY),
    "psr": (1.0, 0.0, TINY),
    "nsr": (0.0, -1.0, TINY),
    "w_reinforce": (0.1, -1.0, TINY),
    "unlikeliness": (1.6198, -0.5399, 5e-5),  # grpo's: its rewards are shaped before
}


def test_every_rule_has_a_fixture() -> None:
    assert set(RULE_FIXTURES) == set(ADVANTAGE_RULES)


@pytest.mark.parametrize("name", sorted(ADVANTAGE_RULES))
def test_same_group_under_every_rule(name: str) -> None:
    right, wrong, tolerance = RULE_FIXTURES[name]
    rewards = vector([1, 0, 1, 0, 0, 0, 0, 0])
    assert close(get_rule(name)(rewards, k=4), [right, wrong, right] + [wrong] * 5, tolerance)


def brute_force(g: tuple[F, ...], k: int) -> tuple[F, list[F], list[F], list[F] | None]:
    """rho, s, s^(loo-1) and s^(loo) straight from their definitions, in rational arithmetic."""

    def rho(values: tuple[F, ...], size: int) -> F:
        subsets = list(combinations(values, size))
        return sum((max(subset) for subset in subsets), F(0)) / len(subsets)

    n = len(g)
    subsets = list(combinations(range(n), k))
    s, loo1 = [F(0)] * n, [F(0)] * n
    for subset in subsets:
        best = max(g[i] for i in subset)
        for i in subset:
            s[i] += best / len(subsets)
            rest = [g[j] for j in subset if j != i]
            loo1[i] += (best - (max(rest) if rest else 0)) / len(subsets)
    if k == n:
        return rho(g, k), s, loo1, None
    return rho(g, k), s, loo1, [s[i] - F(k, n - 1) * rho(g[:i] + g[i + 1 :], k) for i in range(n)]


@pytest.mark.parametrize("seed", range(12))
def test_pkpo_equals_brute_force(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = int(torch.randint(2, 8, (1,), generator=generator))
    levels = 2 if seed % 2 else 5  # few levels make ties
    draws = torch.randint(0, levels, (n,), generator=generator).tolist()
    g = tuple(F(int(value), levels - 1) for value in draws)
    for k in range(1, n + 1):
        rho, s, loo1, loo = brute_force(g, k)
        assert close(max_at_k(vector(g), k=k).view(1), [rho])
        assert close(subset_credit(vector(g), k=k), s)
        assert close(leave_one_out_minus_one(vector(g), k=k), loo1)
        if loo is not None:
            assert close(leave_one_out(vector(g), k=k), loo)
        assert close(subset_credit(vector(g), k=k).sum().view(1), [k * rho])


def test_k_of_one_is_the_plain_reward() -> None:
    g = vector(GRADED)
    assert close(subset_credit(g, k=1), [value / 4 for value in GRADED])
    assert close(ADVANTAGE_RULES["pkpo"](g, k=1), GRADED)


@pytest.mark.parametrize("name", sorted(ADVANTAGE_RULES))
def test_permutation_and_leading_axes(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    rewards = torch.randint(0, 2, (3, 2, 8), generator=generator).double()
    rule = get_rule(name)
    advantages = rule(rewards, k=3)
    assert advantages.shape == rewards.shape and advantages.dtype == torch.float64
    order = torch.randperm(8, generator=generator)
    assert torch.allclose(rule(rewards[..., order], k=3), advantages[..., order], atol=TINY)
    assert torch.allclose(rule(rewards[2, 1], k=3), advantages[2, 1], atol=TINY)
    assert torch.equal(rule(rewards.bool(), k=3), rule(rewards.float(), k=3))


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "pass_at_k"])
def test_centred_rules_sum_to_zero(name: str) -> None:
    for correct in range(9):
        rewards = vector([1] * correct + [0] * (8 - correct))
        assert get_rule(name)(rewards, k=4).sum().abs() < 1e-9


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_group_without_contrast_gets_exactly_zero(value: float, dtype: torch.dtype) -> None:
    rewards = torch.full((2, 7), value, dtype=dtype)
    assert torch.count_nonzero(ADVANTAGE_RULES["grpo"](rewards, k=4)) == 0
    assert torch.count_nonzero(ADVANTAGE_RULES["pkpo"](rewards, k=4)) == 0


def test_pkpo_has_no_signal_on_easy_groups_and_never_pushes_down() -> None:
    for correct in range(9):
        advantages = ADVANTAGE_RULES["pkpo"](vector([1] * correct + [0] * (8 - correct)), k=4)
        assert (advantages >= 0).all() and torch.count_nonzero(advantages[correct:]) == 0
        assert (torch.count_nonzero(advantages) == 0) == (correct == 0 or correct > 5)


@pytest.mark.parametrize("estimator", [subset_credit, leave_one_out, leave_one_out_minus_one])
def test_pkpo_is_an_unbiased_gradient_of_max_at_k(estimator) -> None:  # type: ignore[no-untyped-def]
    """Exact expectation over all n-sample outcomes of a categorical policy, not a simulation."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    values = torch.tensor([0.0, 1.0, 0.4], dtype=torch.float64)
    n, k = 4, 2
    probs = logits.softmax(0)
    outcomes = torch.tensor(list(product(range(3), repeat=n)))
    objective = sum(probs[list(draw)].prod() * values[list(draw)].max() for draw in product(range(3), repeat=k))
    (exact,) = torch.autograd.grad(objective, logits, retain_graph=True)
    weights = probs.detach()[outcomes].prod(dim=-1, keepdim=True) * estimator(values[outcomes], k=k)
    (estimate,) = torch.autograd.grad((weights * logits.log_softmax(0)[outcomes]).sum(), logits)
    assert torch.allclose(estimate, exact, atol=1e-12)


def test_pkpo_monte_carlo() -> None:
    """The same by simulation at the sizes of a step (n=16, k=4), within four standard errors."""
    probs = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    success = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    n, k, groups = 16, 4, 40_000
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(probs.expand(groups, 3), n, True, generator=generator)
    score = torch.nn.functional.one_hot(draws, 3).double() - probs  # d log p / d logits
    per_group = (leave_one_out_minus_one(success[draws], k=k).unsqueeze(-1) * score).sum(dim=1)
    p = probs[2]
    exact = k * (1 - p) ** (k - 1) * p * (torch.tensor([0.0, 0.0, 1.0]).double() - probs)
    error = per_group.std(dim=0) / groups**0.5
    assert (((per_group.mean(dim=0) - exact) / error).abs() < 4).all()


# --- CPPO -----------------------------------------------------------------------------------------


def draw_rewards(problems: int = 2, members: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    solver = torch.randint(0, 2, (problems, members, 4), generator=generator).double()
    return torch.randint(0, 2, (problems, members), generator=generator).double(), solver


def test_groupings_compare_the_rows_they_name() -> None:
    planner, solver = draw_rewards()
    grpo = ADVANTAGE_RULES["grpo"]
    got_planner, by_problem = cppo_advantages(planner, solver)
    assert torch.allclose(got_planner, torch.stack([grpo(row, k=1) for row in planner]))
    assert torch.allclose(by_problem[1], grpo(solver[1].reshape(12), k=1).view(3, 4))
    _, by_slot = cppo_advantages(planner, solver, solver_grouping="slot")
    assert torch.allclose(by_slot[1, :, 2], grpo(solver[1, :, 2], k=1))
    _, by_tuple = cppo_advantages(planner, solver, solver_grouping="tuple")
    assert torch.allclose(by_tuple[0, 2], grpo(solver[0, 2], k=1))


def test_grouping_by_method_compares_equal_methods_of_one_problem() -> None:
    """Method 7 appears three times on the first problem, 8 once; the second problem is apart."""
    rewards = vector([1, 0, 0, 1, 1, 1, 0, 0]).view(2, 2, 2)
    methods = torch.tensor([7, 8, 7, 7, 7, 7, 9, 9]).view(2, 2, 2)
    _, solver = cppo_advantages(
        torch.zeros(2, 2).double(), rewards, methods=methods, solver_grouping="method",
        solver_rule="rloo",
    )  # fmt: skip
    assert close(solver[0].flatten(), [0.5, 0, -1, 0.5])
    assert close(solver[1].flatten(), [0, 0, 0, 0])
    with pytest.raises(ParameterError, match="needs the method of each attempt"):
        cppo_advantages(torch.zeros(2, 2).double(), rewards, solver_grouping="method")


def test_cppo_by_hand() -> None:
    """G=2, K=2: the planner of the winning tuple is praised, its losing attempt is not."""
    planner_rewards, solver_rewards = vector([1, 0]).view(1, 2), vector([1, 0, 0, 0]).view(1, 2, 2)
    planner, solver = cppo_advantages(planner_rewards, solver_rewards, planner_rule="rloo", solver_rule="rloo")
    assert close(planner[0], [1, -1])
    assert close(solver[0].flatten(), [1, -1 / 3, -1 / 3, -1 / 3])


def test_planner_and_gate_switched_off_equals_grpo() -> None:
    """Only solver rows, no planner tokens: GRPO's advantages on n = G*K samples, to the bit."""
    _, solver_rewards = draw_rewards(problems=3, members=2)
    planner, solver = cppo_advantages(torch.zeros(3, 2).double(), solver_rewards)
    weights = row_weights(torch.tensor([[7] * 8] * 3), torch.zeros(3, 8, dtype=torch.bool), loss_mean="regions")
    assert torch.count_nonzero(planner) == 0
    assert torch.equal(solver.view(3, 8) * weights, ADVANTAGE_RULES["grpo"](solver_rewards.view(3, 8), k=1))


def token_losses(row: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
    """A clipped surrogate of a row of ratios, and something that does not depend on the advantage, as a KL term."""
    return -torch.minimum(row * advantage, row.clamp(0.8, 1.2) * advantage) + 0.1 * (row - 1) ** 2


LENGTHS = torch.tensor([3, 5, 2, 11, 7, 9, 13, 8, 10])
PLANS = torch.arange(9) < 3


def ragged() -> tuple[list[torch.Tensor], torch.Tensor]:
    """Rows of ratios of these lengths, and their advantages."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.exp(0.3 * torch.randn(int(n), generator=generator).double()) for n in LENGTHS]
    return rows, torch.randn(9, generator=generator).double()


def weighed(weights: torch.Tensor) -> float:
    """TRL's token-mean loss with such weights."""
    terms = [w * token_losses(row, a).sum() for w, row, a in zip(weights.double(), *ragged(), strict=True)]
    return float(sum(terms) / LENGTHS.sum())


@pytest.mark.parametrize(("planner_weight", "solver_weight"), [(1.0, 1.0), (2.0, 0.5), (1.0, 0.0)])
def test_weights_make_the_sum_of_region_means(planner_weight: float, solver_weight: float) -> None:
    """A clipped token-mean loss over ragged rows, against the two region means computed apart."""
    weights = row_weights(
        LENGTHS, PLANS, loss_mean="regions", planner_weight=planner_weight, solver_weight=solver_weight
    )
    each = [token_losses(row, advantage) for row, advantage in zip(*ragged(), strict=True)]
    apart = planner_weight * torch.cat(each[:3]).mean() + solver_weight * torch.cat(each[3:]).mean()
    assert weighed(weights) == pytest.approx(apart.item(), abs=1e-6)
    assert bool(weights[~PLANS].any()) is bool(solver_weight)


def test_weights_make_the_mean_over_rows_that_are_in_the_loss() -> None:
    """As released: each row's token mean, a plan like a program; of rows left out nothing counts, not even in R."""
    kept = torch.tensor([True, False, True, True, True, True, True, False, True])
    weights = row_weights(LENGTHS, PLANS, loss_mean="rows", kept=kept)
    means = [token_losses(row, a).mean() for row, a, ok in zip(*ragged(), kept, strict=True) if ok]
    assert weighed(weights) == pytest.approx(float(sum(means) / 7), abs=1e-6)
    assert torch.count_nonzero(weights) == 7
    frozen = row_weights(LENGTHS, PLANS, loss_mean="rows", kept=kept, solver_weight=0.0)
    assert weighed(frozen) == pytest.approx(float(sum(means[:2]) / 2), abs=1e-6)


def test_bad_input_is_named() -> None:
    planner, solver = draw_rewards()
    with pytest.raises(ParameterError, match="did you mean 'pkpo'"):
        get_rule("pkp")
    with pytest.raises(ParameterError, match="unknown solver_grouping 'row'"):
        cppo_advantages(planner, solver, solver_grouping="row")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"expected \(P, G\)"):
        cppo_advantages(planner[:1], solver)
    with pytest.raises(ParameterError, match="grpo needs groups of at least 2"):
        cppo_advantages(planner[:, :1], solver[:, :1])
    with pytest.raises(ParameterError, match="at least 5 samples"):
        get_rule("pkpo")(solver, k=5)
    with pytest.raises(ParameterError, match="rewards 0 and 1 only"):
        get_rule("pass_at_k")(vector(GRADED), k=2)
    with pytest.raises(ParameterError, match="not finite"):
        get_rule("grpo")(vector([1, float("nan")]), k=1)
    with pytest.raises(ParameterError, match="must not be negative"):
        row_weights(LENGTHS, PLANS, loss_mean="rows", solver_weight=-1)
    with pytest.raises(ParameterError, match="rows have shapes"):
        row_weights(LENGTHS, PLANS[:3], loss_mean="rows")


def test_unlikelier_successes_are_paid_more() -> None:
    """n = 4: ranks 3, 0, 2, 1 take 0.25 * rank / 4 off the reward; wrong samples keep 0."""
    rewards, logps = vector([1, 1, 0, 1]), vector([-1, -9, -2, -5])
    assert close(unlikely(rewards, logps), [1 - 0.25 * 3 / 4, 1, 0, 1 - 0.25 / 4])
    advantages = get_rule("unlikeliness")(unlikely(rewards, logps), k=4)
    assert advantages[1] > advantages[3] > advantages[0] > 0 > advantages[2]


def test_equally_likely_samples_share_their_rank_whatever_their_order() -> None:
    rewards, logps = vector([1, 1, 1, 0]), vector([-2, -2.00005, -1, -2])
    shared = 1 - 0.25 * 1 / 4  # ranks 0, 1 and 2 are shared by the three samples at -2
    assert close(unlikely(rewards, logps), [shared, shared, 1 - 0.25 * 3 / 4, 0])
    batch = torch.stack([rewards, rewards.flip(0)])
    assert close(unlikely(batch, torch.stack([logps, logps.flip(0)]))[1].flip(0), unlikely(rewards, logps))
    with pytest.raises(ParameterError, match="must match"):
        unlikely(rewards, logps[:3])
