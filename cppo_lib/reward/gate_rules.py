"""The gate J_psi(x, z): is a tuple of methods valid?

`R_plan = J_psi * R_out` pays a planner only for tuples that pass the gate. Three conditions are rules, decided here:
(1) the plan lists exactly K methods, (2) each is non-empty, short (`cppo_lib.rollout.plans`), and prose rather than
code, (3) no two are the same, whatever marks, numbers and labels they have (`1. Method 1: Sorting`); other words for
the same method pass.
Training may add a fourth, (4) every method is plausible for the problem, which a frozen model scores: a chat
model that is asked (`cppo_lib.reward.gate_llm`) or one with weights psi that was trained for it
(`cppo_lib.reward.gate_verbaliser`).
Evaluation uses the rules alone, so that the valid rates of all methods mean the same. The abstract does not define
J_psi; this is our default. How good a gate is, `cppo_lib.reward.gate_quality` asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cppo_lib.data.problem import Problem
from cppo_lib.rollout.plans import ParsedTuple
from cppo_lib.rollout.replies import normalise
from cppo_lib.rollout.two_stage import Member

_ROMAN = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii")
THRESHOLD = 0.5  # tau where nothing else is said: a tuple is plausible when its score is above it
IMPLAUSIBLE = "implausible"
_CODE = re.compile(
    r"```|\bdef \w+\(|\bimport \w|\breturn\b.*[(\[=]|\bprint\(|\w+\[\w+\]\s*=|[{};]|==|\+=|\bfor \w+ in .*:"
)


@dataclass(frozen=True)
class GateDecision:
    """J as `valid`, with the first reason for a refusal (empty when valid)."""

    valid: bool
    reason: str = ""


def _idea(words: str, place: int) -> str:
    """The letters of a normalised method; a word at either end that only says its place in the list is no part of it.

    So `Sorting 1` and `Sorting 2` are one method where they are the first and the second, as `A heap` and `Heap` are.
    """
    places = {str(place), chr(ord("a") + place - 1), *_ROMAN[place : place + 1]}
    left = words.split()
    while len(left) > 1 and left[0] in places:
        left = left[1:]
    while len(left) > 1 and left[-1] in places:
        left = left[:-1]
    return "".join(left)


def gate(plan: ParsedTuple) -> GateDecision:
    """J of one parsed plan by the rules. Reasons: incomplete, empty, long, code, repeated."""
    if not plan.complete:
        return GateDecision(False, "incomplete")
    words = [normalise(method) for method in plan.methods]
    if not all(any(map(str.isalpha, text)) for text in words):
        return GateDecision(False, "empty")
    if any(len(text.split()) > plan.most_words for text in words):
        return GateDecision(False, "long")
    if any(_CODE.search(method) for method in plan.methods):
        return GateDecision(False, "code")
    if len({_idea(text, place) for place, text in enumerate(words, start=1)}) < len(words):
        return GateDecision(False, "repeated")
    return GateDecision(True)


@dataclass(frozen=True)
class Candidate:
    """A tuple of methods for a problem."""

    problem: Problem
    methods: tuple[str, ...]


class Scorer(Protocol):
    """Condition (4): a frozen model that says how likely it is that every method of a tuple is plausible.

    Attributes:
        threshold: tau; a tuple is accepted when its score is above it.
    """

    threshold: float

    def scores(self, candidates: Sequence[Candidate]) -> list[float]:
        """A number between 0 and 1 for each tuple, in order. Involves no other process of a distributed run."""
        ...


@dataclass(frozen=True)
class GatedMember(Member):
    """A member of a group with the gate's decision.

    Attributes:
        valid: J of its tuple; None where there is none to decide on.
        refusal: why J is 0, empty otherwise.
    """

    valid: bool | None
    refusal: str


def gated(members: Sequence[Member], scorer: Scorer | None = None) -> list[GatedMember]:
    """The members with J; independent one-method plans are not one tuple and are not refused.

    The scorer is asked once, about all tuples that pass the rules; without one the rules are all there is.
    """
    decisions = [None if member.parsed is None else gate(member.parsed) for member in members]
    passed = [i for i, decision in enumerate(decisions) if decision is not None and decision.valid]
    if scorer is not None and passed:
        asked = [Candidate(members[i].problem, plan.methods) for i in passed if (plan := members[i].parsed) is not None]
        for i, score in zip(passed, scorer.scores(asked), strict=True):
            if score <= scorer.threshold:
                decisions[i] = GateDecision(False, IMPLAUSIBLE)
    return [
        GatedMember(**vars(member), valid=j.valid if j else None, refusal=j.reason if j else "")
        for member, j in zip(members, decisions, strict=True)
    ]
