"""Two-stage rollouts: a planner names K methods, then a solver writes one program per method.

A rollout only needs a function that completes token ids, so the same code serves training (TRL's own generation
primitive, with HF generate or vLLM behind it) and evaluation. Every member has exactly K attempts, whatever the
planner wrote: a slot for which no method could be read is attempted with the direct prompt. That keeps the budget equal
and the shapes fixed, which distributed generation depends on. With `unreadable="nothing"` an unreadable tuple has K
attempts in name only: nothing is generated for them. Whether a tuple is valid is not decided here
(`cppo_lib.reward.gate_rules`).

How the K methods come about is the procedure (`cppo_lib.rollout.procedures`).

Every completion is drawn at a place of its own, (problem, member, role, number), so that what a member writes depends
neither on the members beside it nor on the calls before (`cppo_lib.model.engine`).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from cppo_lib.data.problem import Problem
from cppo_lib.model.engine import Completion, Generate, Place
from cppo_lib.rollout.plans import ParsedTuple
from cppo_lib.rollout.procedures import PROCEDURES
from cppo_lib.rollout.prompts import PromptStyle, SolverPrompt
from cppo_lib.rollout.task import Planned, Slot, Steps, Task, Unreadable

Asked = tuple[str, Place]  # a prompt and the place of its completion


@dataclass(frozen=True)
class Sample:
    """One prompt with its completion, as ids and as text."""

    prompt_ids: list[int]
    completion: Completion
    text: str

    def readable(self, read_cut: bool) -> bool:
        """May its text be read? Not where a cut one may not be."""
        return read_cut or not self.completion.cut


@dataclass(frozen=True)
class Member:
    """One group member: planner calls (or none) and K attempts on one problem.

    Attributes:
        plans: the planner samples in the order of the calls; none (direct), one (tuple) or many.
        parsed: the tuple that was asked for, as it was read; None where no tuple was asked for.
        slots: what each attempt was asked with, and which plan that comes from.
        attempts: per slot the solver's sample; programs: the program extracted from it. Of a slot without one
            (`Slot.made`) the program is empty, and where no attempt was made, completion and text are too. Both are ()
            where plans alone were made.
    """

    problem: Problem
    plans: tuple[Sample, ...]
    parsed: ParsedTuple | None
    slots: tuple[Slot, ...]
    attempts: tuple[Sample, ...]
    programs: tuple[str, ...]

    @property
    def strategies(self) -> tuple[str | None, ...]:
        """Per slot the method that the solver was given, None for a direct prompt."""
        return tuple(slot.strategy for slot in self.slots)

    @property
    def made(self) -> tuple[str, ...]:
        """The programs of the slots that have one."""
        return tuple(program for slot, program in zip(self.slots, self.programs, strict=True) if slot.made)


def _complete(asked: list[Asked], style: PromptStyle, generate: Generate, limit: int) -> list[Sample]:
    if not asked:
        return []
    ids = style.encode([prompt for prompt, _ in asked])
    completions = generate(ids, limit, [place for _, place in asked])
    texts = style.decode([completion.ids for completion in completions])
    return [Sample(prompt, completion, text) for prompt, completion, text in zip(ids, completions, texts, strict=True)]


def rollout(
    problems: Sequence[Problem],
    procedure: str,
    k: int,
    *,
    style: PromptStyle,
    generate: Generate,
    max_plan_tokens: int,
    max_program_tokens: int,
    generate_plans: Generate | None = None,
    solver_prompt: SolverPrompt = "method",
    solve: bool = True,
    read_cut: bool = True,
    unreadable: Unreadable = "direct",
    seed: int = 0,
    numbers: Sequence[int] | None = None,
) -> list[Member]:
    """Roll out one member per entry of `problems` (repeat a problem for more members).

    Each round of planner prompts is generated in one call for all members and the solver prompts in one more, also
    when a plan cannot be read, so that every process of a distributed run makes the same calls with the same counts
    (`plansearch` excepted, see `cppo_lib.rollout.procedures`, and `unreadable="nothing"`, with which the counts follow
    from the plans, and a batch without a readable one makes no call).

    Args:
        procedure: a key of `PROCEDURES`.
        generate: completes solver prompts, and planner prompts too unless `generate_plans` is given.
        solver_prompt: `slot`: the tuple is written, but the solver is told its slot's number instead.
        solve: False: plans are made and no programs.
        read_cut: False: nothing is read of a plan or program that the limit on tokens has ended (released).
        unreadable: `nothing`: no program is written for a tuple that could not be read in full.
        seed: root of what the procedure itself draws.
        numbers: which of its problem's members each entry is; None: the entries with a problem are counted from 0.

    Raises:
        ParameterError: a procedure that the style has no words for.
    """
    counted: defaultdict[str, Iterator[int]] = defaultdict(count)
    numbers = numbers or [next(counted[problem.id]) for problem in problems]
    names = [(problem.id, number) for problem, number in zip(problems, numbers, strict=True)]
    tasks = [
        Task(problem, k, style, random.Random(f"{seed}/{number}/{problem.id}"), solver_prompt, unreadable)
        for problem, (_, number) in zip(problems, names, strict=True)
    ]
    planner = generate_plans or generate
    planned, plans = _plan(
        [PROCEDURES[procedure].steps(task) for task in tasks],
        [(*name, "plan") for name in names],
        lambda asked: _complete(asked, style, planner, max_plan_tokens),
        read_cut,
    )
    if not solve:
        return [
            Member(problem, tuple(own), one.parsed, one.slots, (), ())
            for problem, one, own in zip(problems, planned, plans, strict=True)
        ]
    asked: list[Asked] = [
        (slot.prompt, (*name, "program", number))
        for name, one in zip(names, planned, strict=True)
        for number, slot in enumerate(one.slots)
        if slot.made
    ]
    attempts = iter(_complete(asked, style, generate, max_program_tokens))
    members = []
    for problem, one, own in zip(problems, planned, plans, strict=True):
        tries = tuple(next(attempts) if slot.made else _unmade(slot, style) for slot in one.slots)
        slots = tuple(
            replace(slot, made=slot.made and sample.readable(read_cut))
            for slot, sample in zip(one.slots, tries, strict=True)
        )
        programs = tuple(
            style.program(problem, sample.text) if slot.made else "" for slot, sample in zip(slots, tries, strict=True)
        )
        members.append(Member(problem, tuple(own), one.parsed, slots, tries, programs))
    return members


def _unmade(slot: Slot, style: PromptStyle) -> Sample:
    """The sample of an attempt that is not made: a prompt, which a row of a batch must have, and no completion."""
    (prompt,) = style.encode([slot.prompt])
    return Sample(prompt, Completion([]), "")


def _plan(
    steps: list[Steps], places: Sequence[Place], complete: Callable[[list[Asked]], list[Sample]], read_cut: bool
) -> tuple[list[Planned], list[list[Sample]]]:
    """Run the steps of all members side by side, a round of all of them in one call; per member result and samples.

    A member's calls are numbered behind its entry of `places`, whatever round they are made in.
    """
    samples: list[list[Sample]] = [[] for _ in steps]
    ended: dict[int, Planned] = {}
    replies: dict[int, list[str] | None] = dict.fromkeys(range(len(steps)))
    while replies:
        asked: dict[int, list[str]] = {}
        for number, texts in replies.items():
            try:
                asked[number] = next(steps[number]) if texts is None else steps[number].send(texts)
            except StopIteration as end:
                ended[number] = end.value
        completed = iter(
            complete(
                [
                    (prompt, (*places[number], call))
                    for number, prompts in asked.items()
                    for call, prompt in enumerate(prompts, start=len(samples[number]))
                ]
            )
        )
        replies = {}
        for number, prompts in asked.items():
            new = list(islice(completed, len(prompts)))
            samples[number] += new
            replies[number] = [sample.text if sample.readable(read_cut) else "" for sample in new]
    return [ended[number] for number in range(len(steps))], samples
