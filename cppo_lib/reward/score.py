"""A generation batch after its verdicts: rewards, and the statistics of a training step.

What the rewards are made of, and beside it what shows whether they are being gamed: an independent look at the
tuples (do the programs implement K different methods?), attempts that pass public tests only, and how varied each
role's samples still are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cppo_lib.reward import plan_following, rewards
from cppo_lib.reward.gate_rules import IMPLAUSIBLE, GatedMember
from cppo_lib.rollout.prompts import SolverPrompt
from cppo_lib.rollout.replies import said
from cppo_lib.rollout.two_stage import Sample
from cppo_lib.verifier import Result, Verifier


@dataclass(frozen=True)
class Scores:
    """A generation batch of this process: members, results and what was made of them, all in member order.

    `credit` and `passed` have shape (members, K), K = 0 where plans alone were made; `r_plan`, `valid` and `readable`
    (K methods were named) have (members,). `implemented` has the method of each program; it and `followed` are None
    where nobody can say, and `followed` also where the solver was told no method.
    """

    members: list[GatedMember]
    results: list[list[Result]]
    passed: Tensor
    implemented: list[list[str | None]] | None
    followed: Tensor | None
    valid: Tensor
    r_plan: Tensor
    credit: Tensor

    @property
    def readable(self) -> Tensor:
        return torch.tensor([m.parsed is not None and m.parsed.complete for m in self.members], dtype=torch.float32)

    @property
    def planned(self) -> bool:
        """Are the members tuples, with a planner's sample each?"""
        return self.members[0].parsed is not None

    @property
    def samples(self) -> list[Sample]:
        """One sample per row, member by member: [planner, solver 1..K], without a planner where there is none."""
        return [sample for member in self.members for sample in (*member.plans, *member.attempts)]

    @property
    def rewards(self) -> Tensor:
        """(rows,) the reward of each of `samples`: R_plan for a plan, the credit for a program."""
        blocks = [self.r_plan.unsqueeze(1), self.credit] if self.planned else [self.credit]
        return torch.cat(blocks, dim=1).flatten()

    def attempt_rows(self) -> list[dict[str, Any]]:
        """The attempts, one row each, for people to look at; where plans alone were made, their slots."""
        return [
            {
                "problem_id": member.problem.id,
                "group": member.problem.meta.get("group", ""),
                "member": number,
                "slot": slot,
                "plan": member.plans[0].text if member.plans else None,
                "valid": member.valid,
                "refusal": member.refusal,
                "strategy": strategy,
                "r_plan": float(self.r_plan[number]) if self.planned else None,
                **self._attempt(number, slot),
            }
            for number, member in enumerate(self.members)
            for slot, strategy in enumerate(member.strategies)
        ]

    def _attempt(self, number: int, slot: int) -> dict[str, Any]:
        if not self.results[number]:
            return dict.fromkeys(("program", "verdict", "passed", "followed", "credit"))
        result = self.results[number][slot]
        return {
            "program": self.members[number].programs[slot],
            "verdict": result.verdict,
            "passed": result.passed,
            "followed": None if self.followed is None else bool(self.followed[number, slot]),
            "credit": float(self.credit[number, slot]),
        }


def score(
    members: list[GatedMember],
    verifier: Verifier,
    probe: plan_following.MethodProbe | None,
    *,
    planner_reward: str = "product",
    credit: str = "own",
    outcome_reward: str = "binary",
    solver_prompt: SolverPrompt = "method",
) -> Scores:
    """Verify the members of a batch and reward them.

    Args:
        probe: finds the method that a program implements; None where a benchmark has none, and for direct members.
        planner_reward: a name of `rewards.PLANNER_REWARDS`.
        credit: a name of `rewards.SOLVER_CREDITS`.
        outcome_reward: r_k is 0 or 1 (`binary`), or the share of tests passed (`fraction`).
        solver_prompt: what the solver was told; with `slot` there was no method that it could follow.

    Raises:
        IsolationError: too many programs got no verdict.
    """
    results = plan_following.verify_members(members, verifier)
    failed = [result.reason for row in results for result in row if result.verdict == "IE"]
    plan_following.check_internal_errors(failed, sum(map(len, results)))
    passed = torch.tensor([[r.passed for r in row] for row in results], dtype=torch.float32)
    outcomes = passed
    if outcome_reward == "fraction":
        outcomes = torch.tensor([[r.n_passed / r.n_tests for r in row] for row in results], dtype=torch.float32)
    implemented, followed = None if probe is None else probe.methods(members), None
    if implemented is not None and solver_prompt == "method":
        answers = [plan_following.followed(m, row) for m, row in zip(members, implemented, strict=True)]
        followed = torch.tensor([[bool(a) for a in row] for row in answers], dtype=torch.float32)
    valid = torch.tensor([m.valid is not False for m in members], dtype=torch.float32)
    r_plan = rewards.r_plan(valid, rewards.r_out(outcomes), planner_reward)
    paid = rewards.solver_credit(credit, outcomes, followed)
    return Scores(members, results, passed, implemented, followed, valid, r_plan, paid)


def score_plans(members: list[GatedMember]) -> Scores:
    """Reward plans alone, as the authors' warm-up does: R_plan = J, and no program was written."""
    valid = torch.tensor([m.valid is not False for m in members], dtype=torch.float32)
    none = valid.new_zeros(len(members), 0)
    return Scores(members, [[] for _ in members], none, None, None, valid, valid, none)


def statistics(scores: Scores) -> dict[str, float]:
    """Means over the members of this process, named as in `trainer.step_log.METRICS`; NaN for what is not known."""
    members = scores.members
    named = [m for m in members if m.parsed is not None]
    found: dict[str, float] = {}
    if scores.passed.shape[1]:
        found |= {
            "r_out": rewards.r_out(scores.passed).mean().item(),
            "r_solver": scores.passed.mean().item(),
            "public_only": _public_only(scores),
            "distinct_programs": mean([len(set(m.programs)) for m in members]),
            "solver_entropy": _entropy([(m.problem.id, program) for m in members for program in m.programs]),
            "programs_cut": mean([sample.completion.cut for m in members for sample in m.attempts]),
        }
    if scores.planned:
        found |= {
            "j_rules": mean([bool(m.valid) or m.refusal == IMPLAUSIBLE for m in named]),
            "gate_precision": _gate_precision(named),
            "r_plan": scores.r_plan.mean().item(),
            "duplicate_rate": mean([m.refusal == "repeated" for m in named]),
            "planner_entropy": _entropy([(m.problem.id, said(m.plans[0].text)) for m in members]),
            "plans_cut": mean([sample.completion.cut for m in members for sample in m.plans]),
        }
    if scores.implemented is not None:
        found["distinct_methods"] = mean([None not in row and len({*row}) == len(row) for row in scores.implemented])
    if scores.followed is not None:
        found["followed"] = scores.followed.mean().item()
    return found


def _gate_precision(members: Sequence[GatedMember]) -> float:
    """Share of accepted tuples that are truly valid; NaN where nobody knows, or none was accepted."""
    answers = [plan_following.truly_valid(member) for member in members if member.valid]
    return math.nan if None in answers or not answers else mean([bool(answer) for answer in answers])


def _public_only(scores: Scores) -> float:
    """Share of attempts that pass every public test and fail a hidden one; NaN where that was not seen."""
    answers = [
        plan_following.public_only(member.problem, result)
        for member, results in zip(scores.members, scores.results, strict=True)
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
