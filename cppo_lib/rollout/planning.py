"""The steps of every procedure: which planner calls are made, and with what the K slots are then asked.

A slot for which no method could be read gets the direct prompt, so that every procedure costs K programs whatever the
planner wrote. `cppo_lib.rollout.procedures` says what each procedure is and where it comes from;
`cppo_lib.rollout.divsampling` and `cppo_lib.rollout.plansearch` have the steps of two of them. The wording is ours: the
papers' prompts are longer and were made for larger models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

from cppo_lib.reward.gate_rules import normalise
from cppo_lib.rollout import divsampling, plansearch
from cppo_lib.rollout.procedures import ProcedureName
from cppo_lib.rollout.prompts import ParsedTuple, first_line, parse_tuple
from cppo_lib.rollout.replies import bare, said
from cppo_lib.rollout.tuples import Planned, Slot, Steps, Task

TAIL = 0.1
"""Largest probability that `verbalized_tail` asks for, as in the paper."""
_OBJECT = re.compile(
    r'"method"\s*:\s*(?P<method>"(?:[^"\\\n]|\\.)*")'
    r'\s*(?:,\s*"probability"\s*:\s*(?P<probability>\d*\.?\d+(?:e-?\d+)?))?',
    re.IGNORECASE,
)


# --- one list, or K plans -----------------------------------------------------------------------


def direct(task: Task) -> Steps:
    """K times the direct prompt."""
    yield from ()  # no planner call
    return Planned((task.direct(),) * task.k)


def plan_then_solve(task: Task) -> Steps:
    """K plans of one method each."""
    plans = yield [task.style.planner(task.problem, 1)] * task.k
    methods = [next(iter(task.style.methods(plan)), None) for plan in plans]
    return Planned(tuple(task.follow(method, number) for number, method in enumerate(methods)))


def one_tuple(task: Task) -> Steps:
    """One plan of K methods; with solver_prompt `slot` the solver is told its number instead of its method."""
    (plan,) = yield [task.style.planner(task.problem, task.k)]
    parsed = parse_tuple(plan, task.k)
    if task.solver_prompt == "slot":
        numbered = (task.style.slot(task.problem, number) for number in range(1, task.k + 1))
        return Planned(tuple(Slot(prompt, plan=0) for prompt in numbered), parsed)
    return Planned(_padded(task, [task.follow(method, 0) for method in parsed.methods]), parsed)


def _padded(task: Task, slots: list[Slot]) -> tuple[Slot, ...]:
    """K slots of one plan: direct prompts where it named too few methods."""
    return (*slots, *[task.follow(None, 0)] * (task.k - len(slots)))


# --- sequential ---------------------------------------------------------------------------------


def sequential(task: Task) -> Steps:
    """K planner calls, each shown the methods that were named before it.

    A reply may repeat the list it was shown: its first method that is new is taken, and where none is, its first, which
    makes the tuple invalid as a repetition does in a list.
    """
    named: list[str] = []
    slots: list[Slot] = []
    for number in range(task.k):
        (reply,) = yield [task.style.next_method(task.problem, named, task.k)]
        listed = task.style.methods(reply, after=len(named))
        known = set(map(normalise, named))
        method = next((item for item in listed if normalise(item) not in known), listed[0] if listed else None)
        slots.append(task.follow(method, number))
        named += [] if method is None else [method]
    return Planned(tuple(slots), ParsedTuple(tuple(named), len(named) == task.k))


# --- verbalized sampling ------------------------------------------------------------------------


def verbalized(task: Task, *, tail: bool) -> Steps:
    """One list of K methods with their probabilities, as JSON: small models give a number in no other format."""
    source = f"tail of the distribution (each less probable than {TAIL:.2f})" if tail else "full distribution"
    request = (
        f"Name {task.k} different high-level methods to solve it, taken at random from the {source} of all, each "
        f"with its probability. Reply with a JSON list of exactly {task.k} objects and nothing else. Each has the keys "
        '"method", a short phrase of plain words, and "probability", a number between 0 and 1.'
    )
    (plan,) = yield [task.style.ask(task.problem, request)]
    read = read_probabilities(plan)
    parsed = ParsedTuple(tuple(method for method, _ in read[: task.k]), len(read) == task.k)
    return Planned(_padded(task, [task.follow(method, 0, chance) for method, chance in read[: task.k]]), parsed)


def read_probabilities(plan: str) -> list[tuple[str, float | None]]:
    """Methods and probabilities of the JSON objects in a plan, which may be cut off or have other words around it.

    The probability is None where none in [0, 1] is given; objects without a method are left out.
    """
    found = []
    for item in _OBJECT.finditer(said(plan)):
        method = bare(_unquote(item["method"]))
        chance = float(item["probability"] or "nan")
        if method:
            found.append((method, chance if 0 <= chance <= 1 else None))
    return found


def _unquote(text: str) -> str:
    try:
        return str(json.loads(text, strict=False)).strip()
    except json.JSONDecodeError:  # a backslash that JSON does not know
        return text[1:-1].strip()


# --- intent-factored generation -----------------------------------------------------------------


def ifg(task: Task) -> Steps:
    """K intents, each with its program; the two temperatures are the caller's."""
    request = (
        "Before you write the program, state your intent: by which algorithm or idea will you solve it? Reply with one "
        "line of a few keywords, without code."
    )
    intents = yield [task.style.ask(task.problem, request)] * task.k
    return Planned(tuple(task.follow(first_line(intent), number) for number, intent in enumerate(intents)))


STEPS: dict[ProcedureName, Callable[[Task], Steps]] = {
    "direct": direct,
    "plan_then_solve": plan_then_solve,
    "tuple": one_tuple,
    "sequential": sequential,
    "verbalized": partial(verbalized, tail=False),
    "verbalized_tail": partial(verbalized, tail=True),
    "ifg": ifg,
    "divsampling": divsampling.injected,
    "divsampling_ideas": divsampling.ideas,
    "plansearch": plansearch.search,
    "plansearch_lite": plansearch.lite,
}
"""The steps of each procedure."""
