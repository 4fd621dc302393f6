"""Advantage rules: from the rewards of one group to one advantage per sample.

A rule is a pure function `rule(rewards, *, k)` over the last axis, which is one group of n samples
of the same problem; leading axes are independent groups. `ADVANTAGE_RULES` names them all, so that
an arm of a comparison differs from its neighbours in one word of its parameter file.

    grpo       (r - mean) / (std + 1e-4), Bessel's std as in TRL  (Shao et al. 2024, 2402.03300)
    grpo_population  (r - mean) / (population std + 1e-8), 0 for a group of one or of equal rewards
                              (CPPO as released, Li et al. 2026, the authors' code at 8e5ea8a4)
    dr_grpo    r - mean                                           (Liu et al. 2025, 2503.20783)
    rloo       r_i - mean of the other n-1                        (Ahmadian et al. 2024, 2402.14740)
    pkpo_loo   n * s^(loo), Eq. 29                      (Walder and Karkhanis 2025, 2505.15201)
    pkpo       n * s^(loo-1), Eq. 33, binary and continuous rewards                   (the same)
    pass_at_k  analytic Pass@k Training, binary rewards           (Chen et al. 2025, 2508.10751)
    psr        1 for correct, 0 for wrong, binary rewards         (Zhu et al. 2025, 2506.01347)
    nsr        0 for correct, -1 for wrong, binary rewards                        (the same)
    w_reinforce  0.1 for correct, -1 for wrong, binary rewards                    (the same)
    unlikeliness  grpo of r (1 - 0.25 rank / n), see `unlikely`   (He et al. 2025, 2506.02355)

`cppo_advantages` applies a rule to each role of a tuple on its own group, and `row_weights` makes of TRL's
token-mean loss the mean over rows (as released), or w_P * (mean over planner tokens) + w_S * (mean over
solver tokens).

Departures: PKPO's estimators are sums over samples with 1/n inside; the rules here multiply by n,
because GRPO losses average over samples. They are neither centred again nor divided by a std, since
both would add bias.
"""

from __future__ import annotations

import difflib
from math import comb
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from cppo_lib.errors import ParameterError
from cppo_lib.trainer.pkpo_estimators import checked, leave_one_out, leave_one_out_minus_one

if TYPE_CHECKING:  # alone: the command line takes the names of the rules from here, and starts without torch
    from torch import Tensor

SolverGrouping = Literal["problem", "slot", "tuple", "method"]
SOLVER_GROUPINGS: tuple[str, ...] = get_args(SolverGrouping)

LossMean = Literal["rows", "regions"]
"""Rows (plans and programs) count alike, or planner and solver do, each by the mean over its tokens."""

PLANNED = ("cppo", "planner")
"""Algorithms that train a planner: with its solver, or alone (the warm-up)."""
LogprobsAt = Literal["one", "sampling"]
"""The temperature of the log-probabilities in the loss: 1 over the whole vocabulary, or that of the draws."""
Cut = Literal["left_out", "kept"]
"""What becomes of a plan or program that the limit on tokens has ended: no reward and no loss, or nothing special."""

GRPO_EPS = 1e-4  # TRL's
POPULATION_EPS = 1e-8  # the authors'
PASS_AT_K_EPS = 1e-6  # that of the authors' code
POSITIVE_WEIGHT = 0.1  # W-REINFORCE's weight of correct samples, the authors'
UNLIKELINESS = 0.25  # the authors' beta: the likeliest sample loses almost a quarter of its reward
SAME_LOGP = 1e-4  # nats; equal sequences in batches of different padding differ by rounding


def rows_per_member(algorithm: str, k: int) -> int:
    """Rows of a batch that a member of a group has: its plan, its K programs, or both."""
    return (0 if algorithm == "planner" else k) + (algorithm in PLANNED)


class Rule(Protocol):
    """`rule(rewards, k=4)`: rewards and result of shape (..., n), the last axis being one group."""

    def __call__(self, rewards: Tensor, *, k: int) -> Tensor: ...


def grpo(rewards: Tensor, *, k: int = 1) -> Tensor:
    """(r - mean) / (std + 1e-4), n >= 2; a group of equal rewards gets exactly 0; `k` is unused."""
    rewards = checked(rewards, at_least=2, rule="grpo")
    spread = rewards.std(dim=-1, keepdim=True)
    # the mean of equal numbers can miss them by a rounding: no contrast must mean no gradient
    flat = rewards.amax(dim=-1, keepdim=True) == rewards.amin(dim=-1, keepdim=True)
    advantages = (rewards - rewards.mean(dim=-1, keepdim=True)) / (spread + GRPO_EPS)
    return advantages.masked_fill(flat, 0.0)


def grpo_population(rewards: Tensor, *, k: int = 1) -> Tensor:
    """(r - mean) / (population std + 1e-8), n >= 1; a std below 1e-8 or a group of one gives exactly 0; `k` is unused.

    As CPPO was released. A factor of sqrt(n / (n - 1)) more than `grpo`, where both have a contrast.
    """
    rewards = checked(rewards, rule="grpo_population")
    spread = rewards.std(dim=-1, keepdim=True, correction=0)
    advantages = (rewards - rewards.mean(dim=-1, keepdim=True)) / (spread + POPULATION_EPS)
    flat = rewards.amax(dim=-1, keepdim=True) - rewards.amin(dim=-1, keepdim=True) < POPULATION_EPS
    return advantages.masked_fill(flat, 0.0)


def dr_grpo(rewards: Tensor, *, k: int = 1) -> Tensor:
    """r - mean over groups of n >= 1. `k` is unused."""
    rewards = checked(rewards, rule="dr_grpo")
    return rewards - rewards.mean(dim=-1, keepdim=True)


def rloo(rewards: Tensor, *, k: int = 1) -> Tensor:
    """r_i minus the mean of the other n-1 rewards, n >= 2. `k` is unused."""
    rewards = checked(rewards, at_least=2, rule="rloo")
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
    rewards = _binary(rewards, at_least=k, rule="pass_at_k")
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
    return right_value[correct_count].where(rewards > 0, wrong_value[correct_count])


def psr(rewards: Tensor, *, k: int = 1) -> Tensor:
    """Positive sample reinforcement, binary rewards: 1 if correct, 0 if wrong; `k` is unused."""
    return _binary(rewards, rule="psr")


def nsr(rewards: Tensor, *, k: int = 1) -> Tensor:
    """Negative sample reinforcement, binary rewards: 0 if correct, -1 if wrong; `k` is unused."""
    return _binary(rewards, rule="nsr") - 1


def w_reinforce(rewards: Tensor, *, k: int = 1) -> Tensor:
    """Both with the positive side turned down, binary rewards: 0.1 if correct, -1 if wrong; `k` is unused."""
    rewards = _binary(rewards, rule="w_reinforce")
    return POSITIVE_WEIGHT * rewards - (1 - rewards)


def unlikely(rewards: Tensor, logps: Tensor) -> Tensor:
    """r (1 - 0.25 rank / n): among equally good samples of a group, the unlikelier ones are paid more.

    Args:
        rewards: (..., n).
        logps: (..., n), log-probability of each whole sequence under the policy that sampled it. Rank 0 is the least
            likely; equally likely samples share the mean of their ranks, so that their order does not matter.
    """
    if logps.shape != rewards.shape:
        shapes = f"{tuple(rewards.shape)} and {tuple(logps.shape)}"
        raise ParameterError(f"rewards and log-probabilities have shapes {shapes}; they must match")
    rewards = checked(rewards, rule="unlikeliness")
    gaps = logps.unsqueeze(-1) - logps.unsqueeze(-2)  # (..., i, j): how much likelier i is than j
    below = (gaps > SAME_LOGP).sum(dim=-1)
    tied = (gaps.abs() <= SAME_LOGP).sum(dim=-1) - 1
    rank = (below + tied / 2).to(rewards)
    return rewards * (1 - UNLIKELINESS * rank / rewards.shape[-1])


BINARY_RULES: dict[str, Rule] = {"pass_at_k": pass_at_k, "psr": psr, "nsr": nsr, "w_reinforce": w_reinforce}
"""Those that are defined for rewards 0 and 1 only."""
GROUP_RULES = ("grpo_population", "grpo")
"""Those of the roles of a tuple."""
ADVANTAGE_RULES: dict[str, Rule] = {
    "grpo": grpo,
    "grpo_population": grpo_population,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "pkpo_loo": pkpo_loo,
    "pkpo": pkpo,
    **BINARY_RULES,
    "unlikeliness": grpo,  # of rewards that `unlikely` has shaped
}


def get_rule(name: str) -> Rule:
    """The rule called `name`. Raises ParameterError with the nearest known name."""
    if name not in ADVANTAGE_RULES:
        near = difflib.get_close_matches(name, ADVANTAGE_RULES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ParameterError(f"unknown advantage rule {name!r}; {hint}known: {', '.join(ADVANTAGE_RULES)}")
    return ADVANTAGE_RULES[name]


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
        solver_rewards: (P, G, K), credit of the K attempts of each tuple; K = 0 where plans alone are trained.
        solver_grouping: which attempts on a problem are compared: all G*K ("problem"), the G in
            the same "slot", the K of one "tuple" (as released), or those that were given the same "method".
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
    if not solver_rewards.shape[-1]:
        solver = solver_rewards
    elif solver_grouping == "problem":
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
    result = solver_rewards.new_zeros(solver_rewards.shape)
    for problem in range(len(methods)):
        for method in methods[problem].unique():
            group = methods[problem] == method
            if group.sum() > 1:
                result[problem, group] = rule(solver_rewards[problem, group], k=k)
    return result


def row_weights(
    tokens: Tensor,
    planner: Tensor,
    *,
    loss_mean: LossMean,
    kept: Tensor | None = None,
    planner_weight: float = 1.0,
    solver_weight: float = 1.0,
) -> Tensor:
    """What each row's tokens weigh, so that TRL's token-mean (`dapo`) loss becomes the one that is asked for.

    That loss is the sum over all tokens of the generation batch, divided by their number N. Weighing the tokens of row
    i, of n_i tokens, by w_i makes it

        rows      the mean over rows of each row's token mean, w_i = N / (R n_i) for R rows (as released); a plan counts
                  as much as a program, 1 : K in all
        regions   w_P * (mean over planner tokens) + w_S * (mean over solver tokens), w_i = w_P N / N_P or w_S N / N_S;
                  a few planner tokens would drown in a plain token mean

    The clipped objective is positively homogeneous in the advantage, so w_i may stand in the advantage where there is
    no KL term.

    Args:
        tokens: any shape, tokens of each row of the whole generation batch over all ranks, as the loss's own
            denominator counts them.
        planner: same shape, bool: the rows that are plans.
        loss_mean: `rows` or `regions`.
        kept: same shape, bool: rows that are in the loss; None: all. Rows of zero advantage are: they carry KL.
        planner_weight, solver_weight: w_P and w_S >= 0, in `rows` too. A region of weight 0 is not in the loss.

    Returns:
        Same shape, float; 0 for a row that is not in the loss.

    Raises:
        ParameterError: a negative weight or count, or shapes that differ.
    """
    kept = tokens > 0 if kept is None else kept & (tokens > 0)
    if not tokens.shape == planner.shape == kept.shape:
        raise ParameterError(f"rows have shapes {tuple(tokens.shape)}, {tuple(planner.shape)} and {tuple(kept.shape)}")
    if min(planner_weight, solver_weight, int(tokens.min())) < 0:
        raise ParameterError("planner_weight, solver_weight and token counts must not be negative")
    total = int(tokens.sum())
    weights = tokens * 0.0  # in torch's default type
    regions = [(kept & planner, planner_weight), (kept & ~planner, solver_weight)]
    rows = sum(int(region.sum()) for region, weight in regions if weight)
    for region, weight in regions:
        if loss_mean == "rows":
            weights[region] = weight * total / (rows * tokens[region]) if weight else 0.0
        elif region.any():
            weights[region] = weight * total / int(tokens[region].sum())
    return weights


def _binary(rewards: Tensor, *, rule: str, at_least: int = 1) -> Tensor:
    rewards = checked(rewards, rule=rule, at_least=at_least)
    if not ((rewards == 0) | (rewards == 1)).all():
        raise ParameterError(f"{rule} is defined for rewards 0 and 1 only; pkpo takes graded ones")
    return rewards
