"""Two-stage rollouts: a planner names K methods, then a solver writes one program per method.

A rollout only needs a function that completes token ids, so the same code serves training (TRL's own generation
primitive, with HF generate or vLLM behind it) and evaluation. Every member has exactly K attempts, whatever the
planner wrote: a slot for which no method could be read is attempted with the direct prompt, and the tuple counts as
invalid. That keeps the budget equal and the shapes fixed, which distributed generation depends on.

The three procedures:

- `direct`: K independent programs;
- `plan_then_solve`: K independent one-method plans, each with its program;
- `tuple`: one plan of K methods, each with its program (CPPO, planner-only SFT and the untrained pipeline).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cppo_lib import gate
from cppo_lib.problems import Problem
from cppo_lib.prompts import ParsedTuple, PromptStyle, SolverPrompt, parse_tuple

Procedure = Literal["direct", "plan_then_solve", "tuple"]


@dataclass(frozen=True)
class Completion:
    """Generated token ids (end-of-sequence included) and, where the engine reports them, their log-probabilities."""

    ids: list[int]
    logps: list[float] | None = None


# Completes prompts given as token ids; the second argument is the limit on new tokens.
Generate = Callable[[list[list[int]], int], list[Completion]]


@dataclass(frozen=True)
class Sample:
    """One prompt with its completion, as ids and as text."""

    prompt_ids: list[int]
    completion: Completion
    text: str


@dataclass(frozen=True)
class Member:
    """One group member: a plan (or none) and K attempts on one problem.

    Attributes:
        plans: the planner samples: none (direct), one (tuple) or K (plan_then_solve).
        parsed: the tuple that was read from the plan or plans; None for direct sampling.
        valid: the gate's decision J on the tuple; None where there is no tuple to judge.
        refusal: why J is 0, empty otherwise.
        strategies: per slot the method that the solver was given, None where it was told none.
        attempts: per slot the solver's sample; programs: the program extracted from it.
    """

    problem: Problem
    plans: tuple[Sample, ...]
    parsed: ParsedTuple | None
    valid: bool | None
    refusal: str
    strategies: tuple[str | None, ...]
    attempts: tuple[Sample, ...]
    programs: tuple[str, ...]


def _complete(prompts: list[str], style: PromptStyle, generate: Generate, limit: int) -> list[Sample]:
    if not prompts:
        return []
    ids = style.encode(prompts)
    completions = generate(ids, limit)
    texts = style.decode([completion.ids for completion in completions])
    return [Sample(prompt, completion, text) for prompt, completion, text in zip(ids, completions, texts, strict=True)]


def rollout(
    problems: Sequence[Problem],
    procedure: Procedure,
    k: int,
    *,
    style: PromptStyle,
    generate: Generate,
    max_plan_tokens: int,
    max_program_tokens: int,
    solver_prompt: SolverPrompt = "method",
) -> list[Member]:
    """Roll out one member per entry of `problems` (repeat a problem for more members).

    With solver_prompt `slot` the plan is written and judged, but the solver is told its slot's number instead.

    Planner prompts are generated in one call and solver prompts in a second, also when a plan cannot be read, so
    that every process of a distributed run makes the same calls with the same counts.
    """
    plans_each = {"direct": 0, "plan_then_solve": k, "tuple": 1}[procedure]
    plan_size = k if procedure == "tuple" else 1
    plan_prompts = [style.planner(p, plan_size) for p in problems for _ in range(plans_each)]
    plans = _complete(plan_prompts, style, generate, max_plan_tokens)

    drafts = []
    for number, problem in enumerate(problems):
        own = tuple(plans[number * plans_each : (number + 1) * plans_each])
        parsed, strategies = _read_plans(own, procedure, k)
        drafts.append((problem, own, parsed, (None,) * k if solver_prompt == "slot" else strategies))

    solver_prompts = [
        _solver_prompt(style, problem, slot, method, solver_prompt)
        for problem, _, _, strategies in drafts
        for slot, method in enumerate(strategies, start=1)
    ]
    attempts = _complete(solver_prompts, style, generate, max_program_tokens)

    members = []
    for number, (problem, own, parsed, strategies) in enumerate(drafts):
        tries = tuple(attempts[number * k : (number + 1) * k])
        # J judges tuples; independent one-method plans are not one tuple and are not refused.
        decision = gate.judge(parsed) if procedure == "tuple" and parsed else None
        members.append(
            Member(
                problem=problem,
                plans=own,
                parsed=parsed,
                valid=None if decision is None else decision.valid,
                refusal="" if decision is None else decision.reason,
                strategies=strategies,
                attempts=tries,
                programs=tuple(style.program(problem, sample.text) for sample in tries),
            )
        )
    return members


def _solver_prompt(style: PromptStyle, problem: Problem, slot: int, method: str | None, kind: SolverPrompt) -> str:
    if kind == "slot":
        return style.slot(problem, slot)
    return style.direct(problem) if method is None else style.solver(problem, method)


def _read_plans(
    plans: tuple[Sample, ...], procedure: Procedure, k: int
) -> tuple[ParsedTuple | None, tuple[str | None, ...]]:
    """The tuple in a member's plans and the strategy of each slot (None where no method was read)."""
    if procedure == "direct":
        return None, (None,) * k
    if procedure == "tuple":
        parsed = parse_tuple(plans[0].text, k)
        padding = (None,) * (k - len(parsed.methods))
        return parsed, parsed.methods + padding
    each = [parse_tuple(plan.text, 1) for plan in plans]
    strategies = tuple(one.methods[0] if one.methods else None for one in each)
    named = tuple(method for method in strategies if method is not None)
    return ParsedTuple(named, all(one.complete for one in each)), strategies
