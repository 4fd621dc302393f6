"""Supervised rows: what the tiny base model and the planner read.

Crossroads has a corpus, of which `crossroads_rows` renders methods and programs. A pretrained model needs none: by
self-distillation its own tuples and programs that worked become its fine-tuning data (`distilled_rows`). An evaluation
of the training split (`04_evaluation`, procedure `tuple`) samples tuples of K methods and a program for each, which the
verifier runs. What is kept is what CPPO's reward pays, R_plan = J * R_out = 1: tuples that pass the gate and have an
accepted attempt. Each gives one `plan` row and a `solver` row for every accepted program, so that the solver, which
shares the planner's weights, practises what it could do already. The abstract does not say where the SFT tuples come
from; this is our default (rejection sampling, as in STaR, Zelikman et al. 2022).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cppo_lib.data.benchmarks.crossroads_methods import FAMILIES
from cppo_lib.data.problem import Problem, Test
from cppo_lib.errors import DatasetError
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.plans import PlanFormat, all_methods
from cppo_lib.rollout.prompts import PromptStyle


@dataclass(frozen=True)
class SFTRow:
    """One supervised example: `kind` is direct, solver, plan (K methods) or plan1 (one method)."""

    kind: str
    prompt: str
    completion: str
    problem: Problem = field(compare=False)


def crossroads_rows(
    corpus: Sequence[dict[str, Any]], style: PromptStyle, k: int, also_k: Sequence[int] = ()
) -> list[SFTRow]:
    """Render corpus rows as supervised examples, four per corpus row, one of each kind (and a plan per `also_k`).

    Direct programs and one-method plans follow the popularity q of the methods; solver rows name each method
    equally often, so that the solver can follow any of them. Plans list the first k methods of the row's plan, always
    in the order of the family's catalogue: one spelling for each tuple instead of k!, so that a policy gradient tells
    tuples apart and not spellings.
    """
    families = {family.name: family for family in FAMILIES}
    rows = []
    for number, entry in enumerate(corpus):
        programs = {method.name: method.program for method in families[entry["family"]].methods}
        meta = {"family": entry["family"]}
        problem = Problem(f"corpus/{number}", "crossroads", entry["statement"], (Test("", ""),), meta=meta)
        popular, uniform = entry["popular"], entry["uniform"]
        plans = {size: [name for name in programs if name in entry["plan"][:size]] for size in (k, *also_k)}
        rows += [
            SFTRow("direct", style.direct(problem), programs[popular], problem),
            SFTRow("solver", style.solver(problem, uniform), programs[uniform], problem),
            *(SFTRow("plan", style.planner(problem, size), style.plan(plan), problem) for size, plan in plans.items()),
            SFTRow("plan1", style.planner(problem, 1), style.plan([popular]), problem),
        ]
    return rows


def distilled_rows(attempts: pd.DataFrame, problems: Sequence[Problem], style: PromptStyle) -> list[SFTRow]:
    """Supervised rows from attempt records, in their order and without repeats.

    Args:
        attempts: records of one method with tuples; columns as in `cppo_lib.evaluation.records`.
        problems: the problems that were attempted.

    Raises:
        DatasetError: no tuple passed the gate and a test, or a recorded problem is not among `problems`.
    """
    known = {problem.id: index for index, problem in enumerate(problems)}
    tuples = attempts.groupby(["problem_id", "tuple_index"], sort=False)
    rows: dict[SFTRow, None] = {}
    for _, slots in tuples:
        name = str(slots["problem_id"].iloc[0])
        if name not in known:
            raise DatasetError(f"records hold problem {name!r}, which is not in the training split: evaluate it again")
        if not (slots["valid"].fillna(False).all() and slots["passed"].any()):
            continue
        problem, slots = _light(problems[known[name]]), slots.sort_values("slot")
        plan = style.plan(slots["strategy"].tolist())
        rows[SFTRow("plan", style.planner(problem, len(slots)), plan, problem)] = None
        for _, slot in slots[slots["passed"]].iterrows():
            reply = style.reply(problem, slot["program"])
            rows[SFTRow("solver", style.solver(problem, slot["strategy"]), reply, problem)] = None
    if not rows:
        raise DatasetError(
            f"none of {len(tuples)} tuples passed the gate and a test, so there is nothing to learn from: evaluate "
            "more problems or tuples, easier problems, or a stronger model"
        )
    return list(rows)


def _light(problem: Problem) -> Problem:
    """Without all but one of its tests: rows are kept, and a split's tests may be larger than memory."""
    return dataclasses.replace(problem, tests=problem.tests[:1])


def planned_tuples(rows: Iterable[SFTRow], plan_format: PlanFormat = "numbered") -> list[Candidate]:
    """The valid tuples among the rows, in their order, which are plans of this format."""
    return [Candidate(row.problem, all_methods(row.completion, plan_format)) for row in rows if row.kind == "plan"]
