"""What the steps of a procedure work with: one member's task, and the K slots that they end with.

Steps are a generator over text: it yields the planner prompts of a round, is sent their completions in order, and
returns what was planned. `cppo_lib.rollout.two_stage` runs the steps of many members side by side, a round of all in
one call.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from cppo_lib.data.problem import Problem
from cppo_lib.rollout.plans import ParsedTuple
from cppo_lib.rollout.prompts import PromptStyle, SolverPrompt

Unreadable = Literal["direct", "nothing"]
"""What becomes of the slots of a tuple that could not be read in full.

`direct` (ours): those that no method was read for get the direct prompt, so that every tuple costs K programs.
`nothing` (Li et al. 2026, authors' code at 2f8eb863): a plan without all of its K methods has no programs, and all K
attempts count as failed.
"""


@dataclass(frozen=True)
class Slot:
    """What one attempt is asked with.

    Attributes:
        prompt: the solver's prompt.
        strategy: the method that it names; None for a direct prompt.
        plan: number of the planner call that the method comes from; None where it comes from none.
        probability: what the planner said the method's probability is.
        injection: role and instruction that were put in front of the problem.
        made: False: there is no program. No attempt is made, and the prompt only stands for one; or the limit on
            tokens has ended it, and nothing is read of it.
    """

    prompt: str
    strategy: str | None = None
    plan: int | None = None
    probability: float | None = None
    injection: str | None = None
    made: bool = True


@dataclass(frozen=True)
class Planned:
    """K slots, and the tuple for the gate to decide on; None where no tuple was asked for."""

    slots: tuple[Slot, ...]
    parsed: ParsedTuple | None = None


Steps = Generator[list[str], list[str], Planned]


@dataclass(frozen=True)
class Task:
    """One member's work: exactly `k` programs for `problem`.

    Attributes:
        rng: makes the procedure's own draws.
        solver_prompt: what the solver of a tuple is told.
        unreadable: what becomes of a tuple that could not be read in full.
    """

    problem: Problem
    k: int
    style: PromptStyle
    rng: random.Random
    solver_prompt: SolverPrompt = "method"
    unreadable: Unreadable = "direct"

    def follow(self, method: str | None, plan: int | None, probability: float | None = None) -> Slot:
        """A slot with the method that planner call number `plan` named; the direct prompt where it named none."""
        prompt = self.style.direct(self.problem) if method is None else self.style.solver(self.problem, method)
        return Slot(prompt, method, plan, probability)

    def filled(self, slots: Sequence[Slot] = (), plan: int | None = None) -> tuple[Slot, ...]:
        """K slots: the direct prompt (after planner call number `plan`) where there are fewer."""
        return (*slots, *[self.follow(None, plan)] * (self.k - len(slots)))

    def unmade(self, plan: int) -> tuple[Slot, ...]:
        """K slots without an attempt, after planner call number `plan`."""
        return (Slot(self.style.direct(self.problem), plan=plan, made=False),) * self.k
