"""Advantage rules: from the rewards of one group to one advantage per sample.

A rule is a pure function `rule(rewards, *, k)` over the last axis, which is one group of n samples
of the same problem; leading axes are independent groups. `ADVANTAGE_RULES` names them all, so that
an arm of a comparison differs from its neighbours in one word of its parameter file.

    grpo       (r - mean) / (std + 1e-4), Bessel's std as in TRL  (Shao et al. 2024, 2402.03300)
    dr_grpo    r - mean                                           (Liu et al. 2025, 2503.20783)
    rloo       r_i - mean of the other n-1                        (Ahmadian et al. 2024, 2402.14740)
    pkpo_loo   n * s^(loo), Eq. 29                      (Walder and Karkhanis 2025, 2505.15201)
    pkpo       n * s^(loo-1), Eq. 33, binary and continuous rewards                   (the same)
    pass_at_k  analytic Pass@k Training, binary rewards           (Chen et al. 2025, 2508.10751)
    nsr        -1 for wrong, 0 for correct, binary rewards        (Zhu et al. 2025, 2506.01347)

`cppo_advantages` applies a rule to each role of a tuple on its own group, and `fold_region_weights`
scales the two so that TRL's token-mean loss becomes w_P * (mean over planner tokens) + w_S * (mean
over solver tokens).

Departures: PKPO's estimators are sums over samples with 1/n inside; the rules here multiply by n,
because GRPO losses average over samples. They are neither centred again nor divided by a std, since
both would add bias.
"""

from __future__ import annotations

import difflib
from math import comb
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from cppo_lib.errors import ParameterError

SolverGrouping = Literal["problem", "slot", "tuple", "method"]
SOLVER_GROUPINGS: tuple[str, ...] = get_args(SolverGrouping)

GRPO_EPS = 1e-4  # TRL's
PASS_AT_K_EPS = 1e-6  # that of the authors' code


class Rule(Protocol):
    """`rule(rewards, k=4)`: rewards and result of shape (..., n), the last axis being one group."""

    def __call__(self, rewards: Tensor, *, k: int) -> Tensor: ...


def grpo(rewards: Tensor, *, k: int = 1) -> Tensor:
    """(r - mean) / (std + 1e-4), n >= 2; a group of equal rewards gets exactly 0; `k` is unused."""
    rewards = _checked(rewards, at_least=2, rule="grpo")
    spread = rewards.std(dim=-1, keepdim=True)
    # the mean of equal numbers can miss them by a rounding: no contrast must mean no gradient
    flat = rewards.amax(dim=-1, keepdim=True) == rewards.amin(dim=-1, keepdim=True)
    advantages = (rewards - rewards.mean(dim=-1, keepdim=True)) / (spread + GRPO_EPS)
    return advantages.masked_fill(flat, 0.0)


def dr_grpo(rewards: Tensor, *, k: int = 1) -> Tensor:
    """r - mean over groups of n >= 1. `k` is unused."""
    rewards = _checked(rewards, rule="dr_grpo")
    return rewards - rewards.mean(dim=-1, keepdim=True)


def rloo(rewards: Tensor, *, k: int = 1) -> Tensor:
    """r_i minus the mean of the other n-1 rewards, n >= 2. `k` is unused."""
    rewards = _checked(rewards, at_least=2, rule="rloo")
    n = rewards.shape[-1]
    return (rewards - rewards.mean(dim=-1, keepdim=True)) * (n / (n - 1))


def pkpo_loo(rewards: Tensor, *, k: int) -> Tensor:
    """n * s^(loo) of PKPO (Eq. 29); needs 1 <= k <= n-1."""
    return leave_one_out(rewards, k=k) * rewards.shape[-1]


def pkpo(rewards: Tensor, *, k: int) -> Tensor:
    """n * s^(loo-1) of PKPO (Eq. 33); needs 1 <= k <= n. At k = 1 this is the plain reward."""
    return leave_one_out_minus_one(rewards, k=k) * rewards.shape[-1]


def pass_at_k(rewards: Tensor, *, k: int) -> Tensor:
    """Analytic advantages of Pass@k Training, binary rewards, 1 <= k <= n; zero mean per group.

    With R the share of k-subsets that hold a success and sigma = sqrt(R (1-R)): a correct sample
    gets (1-R)/sigma; a wrong one (1-R-q)/sigma, where q is the share of the k-subsets with this
    sample that hold no success.
    """
    rewards = _binary(_checked(rewards, at_least=k, rule="pass_at_k"), rule="pass_at_k")
    n = rewards.shape[-1]
    right, wrong = [], []
    for correct in range(n + 1):
        failing = n - correct
        fail = comb(failing, k) / comb(n, k)
        sigma = (fail * (1 - fail)) ** 0.5 + PASS_AT_K_EPS
        own_fail = comb(failing - 1, k - 1) / comb(n - 1, k - 1) if failing else fail
        right.append(fail / sigma)
        wrong.append((fail - own_fail) / sigma)
    correct_count = rewards.sum(dim=-1, keepdim=True).long()
    right_value, wrong_value = rewards.new_tensor(right), rewards.new_tensor(wrong)
    return torch.where(rewards > 0, right_value[correct_count], wrong_value[correct_count])


def nsr(rewards: Tensor, *, k: int = 1) -> Tensor:
    """Negative sample reinforcement, binary rewards: 0 if correct, -1 if wrong; `k` is unused."""
    return _binary(_checked(rewards, rule="nsr"), rule="nsr") - 1


ADVANTAGE_RULES: dict[str, Rule] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "pkpo_loo": pkpo_loo,
    "pkpo": pkpo,
    "pass_at_k": pass_at_k,
    "nsr": nsr,
}


def get_rule(name: str) -> Rule:
    """The rule called `name`. Raises ParameterError with the nearest known name."""
    if name not in ADVANTAGE_RULES:
        near = difflib.get_close_matches(name, ADVANTAGE_RULES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(ADVANTAGE_RULES)
        raise ParameterError(f"unknown advantage rule {name!r}; {hint}known: {known}")
    return ADVANTAGE_RULES[name]


# --- PKPO's estimators: each is linear in the rewards sorted in ascending order -------------------


def max_at_k(rewards: Tensor, *, k: int) -> Tensor:
    """rho of PKPO (Eq. 12): mean over all k-subsets of the subset's maximum; (..., n) -> (...).

    For binary rewards this is the unbiased pass@k estimator 1 - C(n-c, k) / C(n, k).
    """
    rewards = _checked(rewards, at_least=k, rule="pkpo")
    n = rewards.shape[-1]
    weights = rewards.new_tensor([comb(i, k - 1) / comb(n, k) for i in range(n)])
    return (rewards.sort(dim=-1).values * weights).sum(dim=-1)


def subset_credit(rewards: Tensor, *, k: int) -> Tensor:
    """s of PKPO (Eq. 19): (1 / C(n,k)) * sum over k-subsets I that contain i of max_I; (..., n)."""
    rewards = _checked(rewards, at_least=k, rule="pkpo")
    return _on_sorted(rewards, _subset_matrix(rewards.shape[-1], k))


def leave_one_out(rewards: Tensor, *, k: int) -> Tensor:
    """s^(loo) of PKPO (Eq. 29): s_i - k/(n-1) * rho of the others; (..., n), needs k <= n-1."""
    rewards = _checked(rewards, at_least=k + 1, rule="pkpo_loo")
    n = rewards.shape[-1]
    share = [comb(i, k - 1) / comb(n - 1, k) for i in range(n - 1)]  # rho's weights on n-1 others
    others = [[0.0 if j == i else share[j - (j > i)] for j in range(n)] for i in range(n)]
    baseline = torch.tensor(others, dtype=torch.float64) * (k / (n - 1))
    return _on_sorted(rewards, _subset_matrix(n, k) - baseline)


def leave_one_out_minus_one(rewards: Tensor, *, k: int) -> Tensor:
    """s^(loo-1) of PKPO (Eq. 33): mean over k-subsets of what i adds to the maximum; (..., n).

    Only subsets in which i is the largest count, and with rewards sorted that is
    sum_{j < i} C(j-1, k-2) (r_i - r_j) / C(n, k). Differences are taken first, so that samples that
    add nothing get exactly 0. At k = 1 nothing is left to compare with: the estimator is r_i / n.
    """
    rewards = _checked(rewards, at_least=k, rule="pkpo")
    n = rewards.shape[-1]
    if k == 1:
        return rewards / n
    ordered, order = rewards.sort(dim=-1)
    weights = ordered.new_tensor([comb(j, k - 2) / comb(n, k) for j in range(n)])
    gains = (ordered.unsqueeze(-1) - ordered.unsqueeze(-2)).tril(-1)  # (..., i, j): r_i - r_j, j < i
    return torch.empty_like(rewards).scatter_(-1, order, (gains * weights).sum(dim=-1))


def _subset_matrix(n: int, k: int) -> Tensor:
    """Matrix of s on ascending rewards: the maximum of a subset is its own highest member."""
    own = [comb(i, k - 1) for i in range(n)]
    above = [comb(j - 1, k - 2) if j and k > 1 else 0 for j in range(n)]
    rows = [[own[i] if j == i else above[j] if j > i else 0 for j in range(n)] for i in range(n)]
    return torch.tensor(rows, dtype=torch.float64) / comb(n, k)


def _on_sorted(rewards: Tensor, matrix: Tensor) -> Tensor:
    """Apply an (n, n) matrix to ascending rewards; results in the order of the samples."""
    ordered, order = rewards.sort(dim=-1)
    values = ordered @ matrix.to(rewards).T
    return torch.empty_like(rewards).scatter_(-1, order, values)


# --- CPPO -----------------------------------------------------------------------------------------


def cppo_advantages(
    planner_rewards: Tensor,
    solver_rewards: Tensor,
    *,
    solver_grouping: SolverGrouping = "problem",
    methods: Tensor | None = None,
    planner_rule: str = "grpo",
    solver_rule: str = "grpo",
    k: int = 1,
) -> tuple[Tensor, Tensor]:
    """Split-region advantages: planner and solver samples are each compared with their own kind.

    Args:
        planner_rewards: (P, G), R_plan of the G tuples of each of P problems: one group each.
        solver_rewards: (P, G, K), credit of the K attempts of each tuple.
        solver_grouping: which attempts on a problem are compared: all G*K ("problem"), the G in
            the same "slot", the K of one "tuple", or those that were given the same "method"
            (not stated in the abstract).
        methods: (P, G, K), equal numbers for equal methods; for grouping by method only. A method
            that was tried once has nothing to compare with and gets 0.
        planner_rule, solver_rule: names in `ADVANTAGE_RULES`; `k` is handed to both.

    Returns:
        Planner advantages (P, G) and solver advantages (P, G, K).

    Raises:
        ParameterError: unknown rule or grouping, shapes that do not fit, or too small a group.
    """
    if solver_rewards.ndim != 3 or planner_rewards.shape != solver_rewards.shape[:2]:
        shapes = f"{tuple(planner_rewards.shape)} and {tuple(solver_rewards.shape)}"
        raise ParameterError(f"rewards have shapes {shapes}; expected (P, G) and (P, G, K)")
    planner = get_rule(planner_rule)(planner_rewards, k=k)
    rule = get_rule(solver_rule)
    if solver_grouping == "problem":
        solver = rule(solver_rewards.flatten(1), k=k).view(solver_rewards.shape)
    elif solver_grouping == "slot":
        solver = rule(solver_rewards.transpose(1, 2), k=k).transpose(1, 2)
    elif solver_grouping == "tuple":
        solver = rule(solver_rewards, k=k)
    elif solver_grouping == "method":
        if methods is None or methods.shape != solver_rewards.shape:
            raise ParameterError("solver_grouping 'method' needs the method of each attempt")
        solver = _by_method(solver_rewards.flatten(1), methods.flatten(1), rule, k)
        solver = solver.view(solver_rewards.shape)
    else:
        known = ", ".join(SOLVER_GROUPINGS)
        raise ParameterError(f"unknown solver_grouping {solver_grouping!r}; known: {known}")
    return planner, solver


def _by_method(solver_rewards: Tensor, methods: Tensor, rule: Rule, k: int) -> Tensor:
    """Apply a rule to each set of equal methods on a problem; both (P, G*K); a set of one gets 0."""
    result = torch.zeros_like(solver_rewards)
    for problem in range(len(methods)):
        for method in methods[problem].unique():
            group = methods[problem] == method
            if group.sum() > 1:
                result[problem, group] = rule(solver_rewards[problem, group], k=k)
    return result


def fold_region_weights(
    planner_advantages: Tensor,
    solver_advantages: Tensor,
    *,
    planner_tokens: int,
    solver_tokens: int,
    planner_weight: float = 1.0,
    solver_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Scale advantages so that the token-mean (`dapo`) loss weighs the two regions as asked.

    The loss is a sum over all trainable tokens divided by N = N_P + N_S, and a few planner tokens
    would drown in it. The clipped objective is positively homogeneous in the advantage, so
    w_P * N / N_P on planner rows and w_S * N / N_S on solver rows make the loss exactly
    w_P * (mean over planner tokens) + w_S * (mean over solver tokens).

    Args:
        planner_advantages, solver_advantages: any shapes, as `cppo_advantages` returns them.
        planner_tokens, solver_tokens: N_P and N_S, trainable tokens of the whole generation batch
            over all ranks, as the loss's own denominator counts them (rows of zero advantage too).
        planner_weight, solver_weight: w_P and w_S >= 0 (not stated in the abstract; our default is
            1 and 1). A solver weight of 0 freezes the solver.

    Returns:
        The two scaled tensors. A region without tokens has no row that counts: it becomes zeros.

    Raises:
        ParameterError: a negative weight or count.
    """
    if min(planner_weight, solver_weight, planner_tokens, solver_tokens) < 0:
        raise ParameterError("planner_weight, solver_weight and token counts must not be negative")
    total = planner_tokens + solver_tokens
    planner_scale = planner_weight * total / planner_tokens if planner_tokens else 0.0
    solver_scale = solver_weight * total / solver_tokens if solver_tokens else 0.0
    return planner_advantages * planner_scale, solver_advantages * solver_scale


# --- checks ---------------------------------------------------------------------------------------


def _checked(rewards: Tensor, *, rule: str, at_least: int = 1) -> Tensor:
    """Rewards as floats (a float type is kept); ParameterError if the group is too small."""
    size = rewards.shape[-1] if rewards.ndim else 0
    if size < at_least:
        need = f"{rule} needs groups of at least {at_least} samples"
        raise ParameterError(f"{need}, got {size}: raise group_size or lower k")
    if not torch.is_floating_point(rewards):
        return rewards.to(torch.get_default_dtype())
    if not torch.isfinite(rewards).all():
        raise ParameterError(f"{rule} got rewards that are not finite: every row needs a reward")
    return rewards


def _binary(rewards: Tensor, *, rule: str) -> Tensor:
    if not ((rewards == 0) | (rewards == 1)).all():
        raise ParameterError(f"{rule} is defined for rewards 0 and 1 only; pkpo takes graded ones")
    return rewards
