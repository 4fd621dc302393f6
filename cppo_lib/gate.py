"""The gate J_psi(x, z): is a tuple of methods valid?

`R_plan = J_psi * R_out` pays a planner only for tuples that pass the gate. Of the design's four conditions, this
module decides the three that are rules: (1) the plan lists exactly K methods, (2) each is non-empty, short, and
prose rather than code, (3) no two are the same. The abstract does not define J_psi; the rules are our default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the reports compare methods and read no prompt, which would load transformers
    from cppo_lib.prompts import ParsedTuple

MAX_WORDS = 40  # our default: a method is a phrase or a sentence, not a worked solution
_CODE = re.compile(
    r"```|\bdef \w+\(|\bimport \w|\breturn\b.*[(\[=]|\bprint\(|\w+\[\w+\]\s*=|[{};]|==|\+=|\bfor \w+ in .*:"
)


@dataclass(frozen=True)
class GateDecision:
    """J as `valid`, with the first reason for a refusal (empty when valid)."""

    valid: bool
    reason: str = ""


def normalise(method: str) -> str:
    """The form in which two methods are compared: lower case, words only."""
    return " ".join(re.findall(r"\w+", method.casefold()))


def judge(plan: ParsedTuple) -> GateDecision:
    """Decide J for one parsed plan. Reasons: incomplete, empty, long, code, repeated."""
    if not plan.complete:
        return GateDecision(False, "incomplete")
    words = [normalise(method) for method in plan.methods]
    if not all(words):
        return GateDecision(False, "empty")
    if any(len(text.split()) > MAX_WORDS for text in words):
        return GateDecision(False, "long")
    if any(_CODE.search(method) for method in plan.methods):
        return GateDecision(False, "code")
    if len(set(words)) < len(words):
        return GateDecision(False, "repeated")
    return GateDecision(True)
