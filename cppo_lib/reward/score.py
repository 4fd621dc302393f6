"""A generation batch after judging: verdicts, gate, rewards, and the statistics of a training step.

What the rewards are made of, and beside it what shows whether they are being gamed: an independent look at the
tuples (do the programs implement K different methods?), attempts that pass public tests only, and how varied each
role's samples still are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cppo_lib.reward import plan_following as judging
from cppo_lib.reward import rewards
from cppo_lib.reward.gate_rules import IMPLAUSIBLE
from cppo_lib.rollout.replies import said
from cppo_lib.rollout.two_stage import Member, Sample
from cppo_lib.trainer.objective import Objective
from cppo_lib.verifier import Result, Verifier


@dataclass(frozen=True)
class Judged:
    """A generation batch of this process: members, results and what was made of them, all in member order.

    `credit` and `passed` have shape (members, K), `r_plan` and `valid` (members,). `implemented` has the method of each
    program; it and `followed` are None where nobody judges, and `followed` also where the solver was told no method.
    """

    members: list[Member]
    results: list[list[Result]]
    passed: Tensor
    implemented: list[list[str | None]] | None
    followed: Tensor | None
    valid: Tensor
    r_plan: Tensor
    credit: Tensor


def judge(
    members: list[Member], objective: Objective, verifier: Verifier, method_judge: judging.MethodJudge | None
) -> Judged:
    """Judge the members of a batch and reward them as the objective says.

    Raises:
        IsolationError: too many programs got no verdict.
    """
    results = judging.judge_members(members, verifier)
    failed = [result.reason for row in results for result in row if result.verdict == "IE"]
    judging.check_internal_errors(failed, sum(map(len, results)))
    passed = torch.tensor([[r.passed for r in row] for row in results], dtype=torch.float32)
    scores = passed
    if objective.outcome_reward == "fraction":
        scores = torch.tensor([[r.n_passed / r.n_tests for r in row] for row in results], dtype=torch.float32)
    implemented, followed = None, None
    if objective.planned and method_judge is not None:
        implemented = method_judge.methods(members)
    if implemented is not None and objective.solver_prompt == "method":
        answers = [judging.followed(m, row) for m, row in zip(members, implemented, strict=True)]
        followed = torch.tensor([[bool(a) for a in row] for row in answers], dtype=torch.float32)
    valid = torch.tensor([m.valid is not False for m in members], dtype=torch.float32)
    # A frozen solver is still given a reward, which its weight of 0 takes out of the loss.
    credit = objective.credit if objective.planned and objective.credit != "frozen" else "own"
    return Judged(
        members,
        results,
        passed,
        implemented,
        followed,
        valid,
        rewards.r_plan(valid, rewards.r_out(scores), objective.reward),
        rewards.solver_credit(credit, scores, followed),
    )


def statistics(judged: Judged, planned: bool) -> dict[str, float]:
    """Means over the members of this process; the names are those of `training.METRICS`, NaN for what is not known."""
    members = judged.members
    named = [m for m in members if m.parsed is not None]
    found: dict[str, float] = {
        "r_out": rewards.r_out(judged.passed).mean().item(),
        "r_solver": judged.passed.mean().item(),
        "public_only": _public_only(judged),
        "distinct_programs": mean([len(set(m.programs)) for m in members]),
        "solver_entropy": _entropy([(m.problem.id, program) for m in members for program in m.programs]),
    }
    if planned:
        found |= {
            "j": judged.valid.mean().item(),
            "j_rules": mean([bool(m.valid) or m.refusal == IMPLAUSIBLE for m in named]),
            "gate_precision": _gate_precision(named),
            "r_plan": judged.r_plan.mean().item(),
            "duplicate_rate": mean([m.refusal == "repeated" for m in named]),
            "planner_entropy": _entropy([(m.problem.id, said(m.plans[0].text)) for m in members]),
        }
    if judged.implemented is not None:
        found["distinct_methods"] = mean([None not in row and len({*row}) == len(row) for row in judged.implemented])
    if judged.followed is not None:
        found["followed"] = judged.followed.mean().item()
    return found


def cut_shares(judged: Judged, objective: Objective, ends: Collection[int]) -> dict[str, float]:
    """Shares of the plans and programs that the limit on tokens has ended; `ends` are the tokens that end one."""

    def share(samples: Iterable[Sample], limit: int) -> float:
        replies = [sample.completion.ids for sample in samples]
        return mean([len(ids) >= limit and ids[-1] not in ends for ids in replies])

    members = judged.members
    found = {"programs_cut": share((s for m in members for s in m.attempts), objective.max_program_tokens)}
    if objective.planned:
        found["plans_cut"] = share((s for m in members for s in m.plans), objective.max_plan_tokens)
    return found


def _gate_precision(members: Sequence[Member]) -> float:
    """Share of accepted tuples that are truly valid; NaN where nobody knows, or none was accepted."""
    answers = [judging.truly_valid(member) for member in members if member.valid]
    return math.nan if None in answers or not answers else mean([bool(answer) for answer in answers])


def _public_only(judged: Judged) -> float:
    """Share of attempts that pass every public test and fail a hidden one; NaN where that was not seen."""
    answers = [
        judging.public_only(member.problem, result)
        for member, results in zip(judged.members, judged.results, strict=True)
        for result in results
    ]
    return math.nan if None in answers else mean([bool(answer) for answer in answers])


def _entropy(samples: Sequence[tuple[str, str]]) -> float:
    """Mean over problems of the entropy (nats) of the texts sampled for it, from their counts."""
    by_problem: dict[str, Counter[str]] = {}
    for problem, text in samples:
        by_problem.setdefault(problem, Counter())[text] += 1
    return mean([_counted_entropy(counts) for counts in by_problem.values()])


def _counted_entropy(counts: Counter[str]) -> float:
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values())


def mean(values: Sequence[float]) -> float:
    """The mean, 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def attempt_rows(judged: Judged, planned: bool) -> list[dict[str, Any]]:
    """The attempts, one row each, for people to look at."""
    rows = []
    for number, (member, results) in enumerate(zip(judged.members, judged.results, strict=True)):
        for slot, (strategy, program, result) in enumerate(
            zip(member.strategies, member.programs, results, strict=True)
        ):
            rows.append(
                {
                    "problem_id": member.problem.id,
                    "group": member.problem.meta.get("group", ""),
                    "member": number,
                    "slot": slot,
                    "plan": member.plans[0].text if member.plans else None,
                    "valid": member.valid,
                    "refusal": member.refusal,
                    "strategy": strategy,
                    "program": program,
                    "verdict": result.verdict,
                    "passed": result.passed,
                    "followed": None if judged.followed is None else bool(judged.followed[number, slot]),
                    "credit": float(judged.credit[number, slot]),
                    "r_plan": float(judged.r_plan[number]) if planned else None,
                }
            )
    return rows
