"""Supervised rows: what the base model and the planner read, rendered from the crossroads corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cppo_lib.data.benchmarks.crossroads_methods import FAMILIES
from cppo_lib.data.problem import Problem, Test
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
